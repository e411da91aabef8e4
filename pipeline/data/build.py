"""Prepare a data set from a source, example by example: memory does not grow with the number of images."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from ..config.schema.data import DataConfig
from ..core.errors import UserError
from ..core.progress import Steps, steps
from .array_file import ArrayFile
from .dataset import SPLITS, Dataset, DatasetFacts
from .images import Form, histogram_of
from .providers import Example, Source

_BATCH: Final = 256  # examples that are decoded together
_CHUNK_BYTES: Final = 1 << 24
_ADDRESS: Final = re.compile(r" ?<[^<>]* at 0x[0-9a-f]+>")  # in messages of Pillow; another one at every run
_MOST_NAMES: Final = 10  # in a message
_VALIDATION_STREAM: Final = ()  # of data.split_seed
_TEST_STREAM: Final = (1,)
_SAME_IN_BOTH: Final = ("mnist", "fashion_mnist", "kmnist", "cifar10")  # torchvision and tfds prepare the same bytes


Shape: TypeAlias = tuple[int, ...]


class _ColourFound(Exception):  # noqa: N818
    """A data set whose first image is grey has a colour image."""


@dataclass(frozen=True)
class _Part:
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


def source_of(data: DataConfig) -> dict[str, Any]:
    """Return the values of the section `data` that define the prepared bytes.

    Without the mirror, as checksums verify its files, without the folder of a user's images, as their content counts,
    and without the provider if torchvision and tfds prepare the same bytes.
    """
    same = data.name in _SAME_IN_BOTH and data.provider in ("torchvision", "tfds")
    return data.model_dump(exclude={"mirror", "root"} | ({"provider"} if same else set()))


def write_dataset(source: Source, data: DataConfig, folder: Path) -> Dataset:
    """Bring the images to one form; order, limit and split them; write them into the existing `folder`.

    Raises `UserError` naming the images that are corrupt or differ in size, or the key that does not fit the data.
    """
    problems: dict[str, str] = {}
    form = Form.of(data)
    try:
        try:
            parts = _store_all(source, data, form, folder, problems)
        except _ColourFound:
            problems.clear()
            parts = _store_all(source, data, replace(form, channels=3), folder, problems)
        return _split(source, data, parts, problems, folder)
    finally:
        for scratch in folder.glob("*.unordered"):
            scratch.unlink()


def _store_all(
    source: Source, data: DataConfig, form: Form, folder: Path, problems: dict[str, str]
) -> dict[str, _Part]:
    with steps("prepare", sum(source.parts.values()) or None, "images") as progress:
        parts: dict[str, _Part] = {}
        shape = None
        for part in source.parts:
            if examples := _store(source, part, form, folder / f"{part}.unordered", problems, progress, shape):
                parts[part], shape = examples, examples.images.shape[1:]
    if problems and data.corrupt == "fail":
        raise UserError(
            f"images that cannot be decoded:{_lines(problems)}\n"
            "data.corrupt = 'fail'; data.corrupt=skip leaves them out"
        )
    if problems:
        print(f"left out, as they cannot be decoded:{_lines(problems)}")
    if empty := source.parts.keys() - parts.keys():
        raise UserError(f"data.name = {data.name}: no image for {' and '.join(sorted(empty))}")
    return parts


def _lines(problems: Mapping[str, str]) -> str:
    """Return a line for each of the first images, with its problem, and the number of the others."""
    lines = "".join(f"\n  {name}: {problem}" for name, problem in islice(problems.items(), _MOST_NAMES))
    return lines + (f"\n  and {len(problems) - _MOST_NAMES:,} more" if len(problems) > _MOST_NAMES else "")


def _store(
    source: Source, part: str, form: Form, path: Path, problems: dict[str, str], progress: Steps, shape: Shape | None
) -> _Part | None:
    """Write the images of one part to `path`; None if none can be decoded. Adds to `problems`.

    `shape`: of every image; None: the first image decides.
    """
    first = ""
    labels, keys, image_keys = [], bytearray(), bytearray()
    with path.open("wb") as file, ThreadPoolExecutor() as pool:
        examples = source.examples(part)
        while batch := list(islice(examples, _BATCH)):
            arrays = (pool.map if source.slow else map)(lambda example: _load(example, form), batch)
            for example, array in zip(batch, arrays, strict=True):
                if isinstance(array, str):
                    problems[example.name] = array
                    continue
                if shape is None:
                    shape, first = array.shape, example.name
                if array.shape != shape:
                    _refuse_shape(form, shape, array.shape, first, example.name)
                image_key, key, content = _keys_of(array, example.label)
                image_keys += image_key
                keys += key
                file.write(content)
                labels.append(example.label)
            progress(len(batch))
    if not labels or shape is None:
        return None
    return _Part(
        ArrayFile(path, (len(labels), *shape), np.dtype(np.uint8)),
        np.array(labels, np.int64),
        np.frombuffer(bytes(keys), ">u8").astype(np.uint64).reshape(-1, 2),
        np.frombuffer(bytes(image_keys), ">u8").astype(np.uint64),
    )


def _keys_of(image: np.ndarray, label: int) -> tuple[bytes, bytes, bytes]:
    """Return the keys of `_Part`, of the image (8 bytes) and of image and label (16 bytes), and the image's bytes."""
    content = image.tobytes()
    digest = hashlib.blake2b(content, digest_size=16)
    image_key = digest.digest()[:8]
    digest.update(np.int64(label).astype("<i8").tobytes())
    return image_key, digest.digest(), content


def _load(example: Example, form: Form) -> np.ndarray | str:
    """Return the decoded image in its form, uint8 (height, width, channels), or why it cannot be decoded."""
    try:
        return form.apply(example.load())
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise any type, struct.error and RuntimeError among others
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


def _split(
    source: Source, data: DataConfig, parts: Mapping[str, _Part], problems: Mapping[str, str], folder: Path
) -> Dataset:
    """Write the three splits and `dataset.json` into `folder`."""
    classes = _classes(source, data, parts)
    rows = _rows_of_splits(data, parts)
    fingerprint = hashlib.blake2b(digest_size=16)
    written: dict[str, _Written] = {}
    for split in SPLITS:
        (folder / split).mkdir()
        written[split] = _write(parts.get(split, parts["train"]), rows[split], folder / split, split, fingerprint)
    counts = {split: np.bincount(written[split].labels, minlength=len(classes)) for split in SPLITS}
    train = parts["train"].image_keys[rows["train"]]
    test = parts.get("test", parts["train"]).image_keys[rows["test"]]
    mean, std = _moments(written["train"].histogram)
    facts = DatasetFacts(
        name=data.name,
        source=source_of(data),
        fingerprint=fingerprint.hexdigest(),
        image_shape=parts["train"].images.shape[1:],
        classes=tuple(classes),
        examples={split: len(written[split].labels) for split in SPLITS},
        class_counts={split: counts[split].tolist() for split in SPLITS},
        channel_mean=mean,
        channel_std=std,
        test_images_in_train=int(np.isin(test, train).sum()),
        skipped=dict(problems),
    )
    facts.write(folder / "dataset.json")
    return Dataset(folder, facts)


def _rows_of_splits(data: DataConfig, parts: Mapping[str, _Part]) -> dict[str, np.ndarray]:
    """Return by split the rows, int64, of its part; of `train` if the source has no such part."""
    rows = {name: part.rows() for name, part in parts.items()}
    if "test" not in rows:
        drawn = _stratified(parts["train"].labels[rows["train"]], data.test_fraction, data, _TEST_STREAM)
        rows |= {"test": rows["train"][drawn], "train": rows["train"][~drawn]}
    # content order is random: the first rows are a random sample
    rows["train"], rows["test"] = rows["train"][: data.max_train], rows["test"][: data.max_test]
    if "validation" not in rows:
        drawn = _stratified(parts["train"].labels[rows["train"]], data.validation_fraction, data, _VALIDATION_STREAM)
        rows |= {"validation": rows["train"][drawn], "train": rows["train"][~drawn]}
    return rows


def _classes(source: Source, data: DataConfig, parts: Mapping[str, _Part]) -> list[str]:
    """Return the names of the classes, by label. Raises `UserError` if they do not fit the labels or repeat."""
    low = min(int(part.labels.min()) for part in parts.values())
    high = max(int(part.labels.max()) for part in parts.values())
    names = data.classes or source.classes or [str(label) for label in range(high + 1)]
    if low < 0 or high >= len(names):
        key = f"data.classes = {data.classes}" if data.classes else f"data.name = {data.name}"
        raise UserError(f"{key}: {len(names)} classes, and labels from {low} to {high}; allowed: 0 to {len(names) - 1}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(
            f"data.name = {data.name}: several classes have the name {', '.join(repeated)}; set data.classes"
        )
    return [str(name) for name in names]


@dataclass(frozen=True)
class _Written:
    """What was written of one split."""

    labels: np.ndarray
    histogram: np.ndarray
    """int64 (channels, 256): count of each pixel value."""


def _write(part: _Part, rows: np.ndarray, folder: Path, split: str, fingerprint: Any) -> _Written:
    """Write `images.npy` and `labels.npy` of these rows into `folder`; update the hash `fingerprint` with them."""
    labels = part.labels[rows]
    shape = (len(rows), *part.images.shape[1:])
    histogram = np.zeros((shape[-1], 256), np.int64)
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        fingerprint.update(f"{split} uint8 {shape}".encode())
        for chunk in _chunks(part.images, rows):
            content = chunk.tobytes()
            file.write(content)
            fingerprint.update(content)
            histogram += histogram_of(chunk)
    np.save(folder / "labels.npy", labels)
    fingerprint.update(f"{split} {labels.dtype} {labels.shape}".encode() + labels.tobytes())
    return _Written(labels, histogram)


def _chunks(images: ArrayFile, rows: np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, _CHUNK_BYTES // int(np.prod(images.shape[1:])))
    for start in range(0, len(rows), size):
        yield images[rows[start : start + size]]


def _moments(histogram: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of every channel, of pixel values in [0, 1], rounded to 9 decimals."""
    values, total = np.arange(256) / 255, histogram.sum(axis=1)
    mean = histogram @ values / total
    variance = (histogram * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean.round(9).tolist(), np.sqrt(variance).round(9).tolist()


def _stratified(labels: np.ndarray, fraction: float, data: DataConfig, stream: Iterable[int]) -> np.ndarray:
    """Draw `fraction` of the examples of each class, rounded, but never all of one; return a mask, bool (N,).

    Raises `UserError` if that draws no example.
    """
    generator = np.random.default_rng([data.split_seed, *stream] if stream else data.split_seed)
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        drawn[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
    if not drawn.any():
        key = "data.test_fraction" if stream else "data.validation_fraction"
        raise UserError(
            f"{key} = {fraction}: leaves none of {len(labels)} examples; allowed: a fraction that leaves at least one "
            "on each side"
        )
    return drawn
