"""Decode all images of a source into scratch files, example by example: memory does not grow with their number."""

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median_low
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from ..config.schema.data import DataConfig
from ..core.errors import UserError
from ..core.progress import Steps, steps
from .array_file import ArrayFile
from .images import REDUCED, DeeperError, Form, is_deep, peculiarities, pixel_limit
from .providers import Example, Source
from .remarks import MOST_NAMED, Remark

_BATCH: Final = 256  # examples that are decoded together
_ADDRESS: Final = re.compile(r" ?<[^<>]* at 0x[0-9a-f]+>")  # in messages of Pillow; another one at every run
_MOST_NAMES: Final = 10  # in a message
_DEEP: Final = "Images of more than 8 bits"
_LEAST_LEVELS: Final = 64  # of 256, that reduced colours and greys must use
_LEAST_PEAK: Final = 16  # of 255: images without a larger value are as good as black

Shape: TypeAlias = tuple[int, ...]


class _ColourFound(Exception):  # noqa: N818
    """A data set whose first image is grey has a colour image."""


@dataclass(frozen=True)
class Part:
    """The examples of one part of the source, in a scratch file, in upstream's order."""

    images: ArrayFile
    """uint8 (N, height, width, channels)."""
    labels: np.ndarray
    """int64 (N,)."""
    keys: np.ndarray
    """uint64 (N, 2): BLAKE2b of image and label, 128 bits."""
    image_keys: np.ndarray
    """uint64 (N,): BLAKE2b of the image alone, the first 64 bits."""

    def rows(self) -> np.ndarray:
        """Return the rows in content order, int64 (N,): by key, so that upstream's order does not matter."""
        return np.lexsort((self.keys[:, 1], self.keys[:, 0]))


class _Image(NamedTuple):
    """A decoded image in its form."""

    pixels: np.ndarray
    """uint8 (height, width, channels)."""
    remarks: list[str]
    """What was not kept, see `images.peculiarities`."""
    deep: np.ndarray | None = None
    """The distinct values, sorted, of a grey image of more than 8 bits."""


@dataclass
class Findings:
    """What was noticed of the images of a source."""

    form: Form
    problems: dict[str, str] = field(default_factory=dict)
    """Names of the images that cannot be decoded, with the reason."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """By what was not kept, the names of the first images."""
    counts: dict[str, int] = field(default_factory=dict)
    reduced_peaks: list[int] = field(default_factory=list)
    """The largest value, of 8 bits, in each image of which Pillow reads the upper 8 of 16 bits."""
    peak: int = 0
    """The largest value, of 8 bits, of all images."""
    brightest: tuple[int, str] = (0, "")
    """The largest value in grey images of more than 8 bits, and the name of the first image that holds it."""
    deep_values: set[int] = field(default_factory=set)
    """Values of these images in the training part; no more are added where there are more than 256."""
    kept: list[tuple[int, int]] = field(default_factory=list)
    """By such image, its distinct values and those that are left of them."""
    kept_levels: set[int] = field(default_factory=set)
    """Values, of 8 bits, that are left in all such images."""

    def add(self, name: str, image: _Image, *, train: bool) -> None:
        """Note what was not kept of an image, which may be of the training part."""
        self.peak = max(self.peak, int(image.pixels.max()))
        if image.deep is not None:
            self.brightest = max(self.brightest, (int(image.deep[-1]), name), key=lambda found: found[0])
            if train:
                levels = np.unique(image.deep >> (self.form.depth - 8)).tolist()
                self.kept.append((len(image.deep), len(levels)))
                self.kept_levels.update(levels)
                if len(self.deep_values) <= 256:
                    self.deep_values.update(image.deep.tolist())
        for remark in image.remarks:
            self.counts[remark] = self.counts.get(remark, 0) + 1
            if len(names := self.names.setdefault(remark, [])) < MOST_NAMED:
                names.append(name)
        if REDUCED in image.remarks:
            self.reduced_peaks.append(int(image.pixels.max()))

    def levels(self) -> int:
        """Return how many levels nine of ten images reach at most, of which Pillow reads the upper 8 of 16 bits."""
        return int(np.quantile(self.reduced_peaks, 0.9, method="lower")) + 1  # a bright pixel somewhere does not count

    def remarks(self) -> list[Remark]:
        """Return what was not kept, with counts and names."""
        depth = self.form.depth
        rule = f"{_DEEP}, divided by {1 << (depth - 8)}, as no value in the data reaches 2^{depth}"
        notes = []
        if depth > 8:
            notes.append(self.range_set())
        if self.peak < _LEAST_PEAK:
            notes.append(f"The largest value of all images is {self.peak} of 255: they are as good as black")
        return [
            *(
                Remark(says=rule if says == _DEEP else says, count=self.counts[says], first=tuple(names))
                for says, names in self.names.items()
            ),
            *(Remark(says=note, count=1, first=()) for note in notes),
        ]

    def range_set(self) -> str:
        """Return a sentence on the image that sets the range of greys, and what most images keep."""
        value, name = self.brightest
        says = f"The largest value of more than 8 bits, {value:,}, in {name}, sets the range of all"
        if not self.kept:
            return says
        return f"{says}; half of the training images keep {median_low([left for _, left in self.kept])} levels or fewer"

    def too_few_levels(self) -> bool:
        """Return whether fewer than 64 levels of grey are left of more than 256 in all training images.

        Or fewer than 64, and less than half of its own, in most of them: small images, or of few greys, have no more.
        """
        if len(self.deep_values) > 256 and len(self.kept_levels) < _LEAST_LEVELS:
            return True
        lost = [left < _LEAST_LEVELS and 2 * left < before for before, left in self.kept]
        return 2 * sum(lost) > len(lost)


def decode_all(source: Source, data: DataConfig, folder: Path) -> tuple[dict[str, Part], Findings]:
    """Decode all images into scratch files `<folder>/<part>.unordered`.

    They have one form: in colour if one is, and scaled by the largest value of all, if they have more than 8 bits.
    Begins again where an image shows that the form must be another. Raises `UserError` naming the images that are
    corrupt or differ in size.
    """
    form = Form.of(data)
    while True:
        try:
            with pixel_limit(data.max_megapixels):
                found = Findings(form)
                return _store_all(source, data, folder, found), found
        except _ColourFound:
            form = replace(form, channels=3)
        except DeeperError as error:
            form = replace(form, depth=error.depth)


def _store_all(source: Source, data: DataConfig, folder: Path, found: Findings) -> dict[str, Part]:
    with steps("prepare", sum(source.parts.values()) or None, "images") as progress:
        parts: dict[str, Part] = {}
        shape = None
        for part in source.parts:
            if examples := _store(source, part, folder, found, progress, shape):
                parts[part], shape = examples, examples.images.shape[1:]
    if found.problems and data.corrupt == "fail":
        raise UserError(
            f"images that cannot be decoded:{_lines(found.problems)}\n"
            "data.corrupt = 'fail'; data.corrupt=skip leaves them out"
        )
    if found.problems:
        print(f"left out, as they cannot be decoded:{_lines(found.problems)}")
    if empty := source.parts.keys() - parts.keys():
        raise UserError(f"data.name = {data.name}: no image for {' and '.join(sorted(empty))}")
    if REDUCED in found.counts and found.levels() < _LEAST_LEVELS:
        raise UserError(
            f"{REDUCED} ({found.counts[REDUCED]:,}): {', '.join(found.names[REDUCED][:_MOST_NAMES])}: their values are "
            f"so low that these hold {found.levels()} levels of 256; allowed: values that use all 16 bits, or images "
            "of 8 bits, so convert them"
        )
    if found.too_few_levels():
        raise UserError(
            f"{_DEEP} ({found.counts[_DEEP]:,}): {found.range_set()}, of grey: fewer than {_LEAST_LEVELS} of 256, "
            "though they hold more values; allowed: images that use the range, so clip that value, or convert to 8 bits"
        )
    for remark in found.remarks():
        print(remark.sentence(_MOST_NAMES // 2))
    return parts


def _lines(problems: Mapping[str, str]) -> str:
    """Return a line for each of the first images, with its problem, and the number of the others."""
    lines = "".join(f"\n  {name}: {problem}" for name, problem in islice(problems.items(), _MOST_NAMES))
    return lines + (f"\n  and {len(problems) - _MOST_NAMES:,} more" if len(problems) > _MOST_NAMES else "")


def _store(
    source: Source, part: str, folder: Path, found: Findings, progress: Steps, shape: Shape | None
) -> Part | None:
    """Write the images of one part to a scratch file; None if none can be decoded. Adds to `found`.

    `shape`: of every image; None: the first image decides.
    """
    first, path = "", folder / f"{part}.unordered"
    labels, keys, image_keys = [], bytearray(), bytearray()
    with path.open("wb") as file, ThreadPoolExecutor() as pool:
        examples = source.examples(part)
        while batch := list(islice(examples, _BATCH)):
            images = (pool.map if source.slow else map)(lambda example: _load(example, found.form), batch)
            for example, image in zip(batch, images, strict=True):
                if isinstance(image, str):
                    found.problems[example.name] = image
                    continue
                found.add(example.name, image, train=part == "train")
                if shape is None:
                    shape, first = image.pixels.shape, example.name
                if image.pixels.shape != shape:
                    _refuse_shape(found.form, shape, image.pixels.shape, first, example.name)
                image_key, key, content = _keys_of(image.pixels, example.label)
                image_keys += image_key
                keys += key
                file.write(content)
                labels.append(example.label)
            progress(len(batch))
    if not labels or shape is None:
        return None
    return Part(
        ArrayFile(path, (len(labels), *shape), np.dtype(np.uint8)),
        np.array(labels, np.int64),
        np.frombuffer(bytes(keys), ">u8").astype(np.uint64).reshape(-1, 2),
        np.frombuffer(bytes(image_keys), ">u8").astype(np.uint64),
    )


def _keys_of(image: np.ndarray, label: int) -> tuple[bytes, bytes, bytes]:
    """Return the keys of `Part`, of the image (8 bytes) and of image and label (16 bytes), and the image's bytes."""
    content = image.tobytes()
    digest = hashlib.blake2b(content, digest_size=16)
    image_key = digest.digest()[:8]
    digest.update(np.int64(label).astype("<i8").tobytes())
    return image_key, digest.digest(), content


def _load(example: Example, form: Form) -> _Image | str:
    """Return the decoded image in its form, or why it cannot be decoded."""
    try:
        raw = example.load()
        pixels, remarks = form.apply(raw), peculiarities(raw)
        if is_deep(raw):
            return _Image(pixels, [*remarks, _DEEP], np.unique(np.asarray(raw)))
        return _Image(pixels, remarks)
    except (UserError, DeeperError):
        raise
    except Image.DecompressionBombError as error:
        return f"{_message(error)} (data.max_megapixels = {(Image.MAX_IMAGE_PIXELS or 0) // 500_000})"
    except Exception as error:  # Pillow's decoders raise any type, struct.error and RuntimeError among others
        return _message(error)


def _message(error: Exception) -> str:
    return _ADDRESS.sub("", " ".join(str(error).split())) or type(error).__name__


def _refuse_shape(form: Form, shape: Shape, other: Shape, first: str, name: str) -> None:
    """Raise `_ColourFound` if the channels of two images differ, `UserError` if their sizes do."""
    if other[:2] == shape[:2]:
        if form.channels is None:
            raise _ColourFound
        raise AssertionError(other)
    a, b = (f"{width}x{height}" for height, width, *_ in (shape, other))
    raise UserError(
        f"data.size = None: images of several sizes: {first or 'the training part'} has {a} pixels, {name} {b}; "
        "give one, such as data.size=32 or data.size=[<height>,<width>], and data.fit=crop, pad or stretch"
    )
