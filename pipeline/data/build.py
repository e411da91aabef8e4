"""A source to a prepared data set, example by example: memory does not grow with the data."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..config.schema.data import DataConfig
from ..core.errors import UserError
from ..core.files import write_json
from ..core.progress import Steps, steps
from .array_file import ArrayFile
from .dataset import SPLITS, Dataset, DatasetFacts
from .images import Form, histogram_of
from .providers import Example, Source

_BATCH: Final = 256  # examples that are decoded together
_CHUNK_BYTES: Final = 1 << 24
_ADDRESS: Final = re.compile(r" ?<[^<>]* at 0x[0-9a-f]+>")  # in what Pillow says; another at every run
_NAMED: Final = 10  # files in a message, at most
_VALIDATION_STREAM: Final = ()  # of data.split_seed
_TEST_STREAM: Final = (1,)
_SAME: Final = ("mnist", "fashion_mnist", "kmnist", "cifar10")  # the same bytes in both libraries, whoever read them


class _ColourFound(Exception):  # noqa: N818
    """A grey data set has a colour image after all."""


@dataclass(frozen=True)
class _Part:
    """The examples of one part of the source in a scratch file, in content order by way of `rows`."""

    images: ArrayFile
    labels: np.ndarray
    keys: np.ndarray
    """uint64 (N, 2): a hash of image and label."""
    image_keys: np.ndarray
    """uint64 (N,): a hash of the image alone."""

    def rows(self) -> np.ndarray:
        """int64 (N,): by hash, whichever library read the files in whatever order."""
        return np.lexsort((self.keys[:, 1], self.keys[:, 0]))


def source_of(data: DataConfig) -> dict[str, Any]:
    """Return what of the configuration defines the prepared bytes.

    Not the mirror, which checksums make irrelevant, nor the place of a user's images, whose content counts.
    """
    same = data.name in _SAME and data.provider in ("torchvision", "tfds")
    return data.model_dump(exclude={"mirror", "root"} | ({"provider"} if same else set()))


def write_dataset(source: Source, data: DataConfig, folder: Path) -> Dataset:
    """Bring the images to one form, order, limit, split and store them in the existing `folder`.

    Raises `UserError` naming the images that are corrupt or do not fit.
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
        for part in source.parts:
            if stored := _store(source, part, form, folder / f"{part}.unordered", problems, progress, parts):
                parts[part] = stored
    if problems and data.corrupt == "fail":
        raise UserError(
            f"images that cannot be decoded:{_some(problems)}\ndata.corrupt = 'fail'; data.corrupt=skip leaves them out"
        )
    if problems:
        print(f"left out, as they cannot be decoded:{_some(problems)}")
    if empty := source.parts.keys() - parts.keys():
        raise UserError(f"data.name = {data.name}: no image for {' and '.join(sorted(empty))}")
    return parts


def _some(problems: Mapping[str, str]) -> str:
    shown = "".join(f"\n  {name}: {what}" for name, what in islice(problems.items(), _NAMED))
    return shown + (f"\n  and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else "")


def _store(
    source: Source,
    part: str,
    form: Form,
    path: Path,
    problems: dict[str, str],
    progress: Steps,
    before: Mapping[str, _Part],
) -> _Part | None:
    """None: nothing could be decoded."""
    shape = next((p.images.shape[1:] for p in before.values()), None)
    first, count = "", 0
    labels, keys, image_keys = [], bytearray(), bytearray()
    with path.open("wb") as file, ThreadPoolExecutor() as pool:
        examples = source.examples(part)
        while batch := list(islice(examples, _BATCH)):
            arrays = (pool.map if source.slow else map)(lambda example: _formed(example, form), batch)
            for example, array in zip(batch, arrays, strict=True):
                if isinstance(array, str):
                    problems[example.name] = array
                    continue
                if shape is None:
                    shape, first = array.shape, example.name
                if array.shape != shape:
                    _refuse_shape(form, shape, array.shape, first, example.name)
                label = np.int64(example.label).astype("<i8")
                digest = hashlib.blake2b(content := array.tobytes(), digest_size=16)
                image_keys += digest.digest()[:8]
                digest.update(label.tobytes())
                keys += digest.digest()
                file.write(content)
                labels.append(example.label)
                count += 1
            progress(len(batch))
    if not count or shape is None:
        return None
    return _Part(
        ArrayFile(path, (count, *shape), np.dtype(np.uint8)),
        np.array(labels, np.int64),
        np.frombuffer(bytes(keys), ">u8").astype(np.uint64).reshape(-1, 2),
        np.frombuffer(bytes(image_keys), ">u8").astype(np.uint64),
    )


def _formed(example: Example, form: Form) -> np.ndarray | str:
    """The image, or what is wrong with it."""
    try:
        return form.apply(example.load())
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise what they like, struct.error and RuntimeError among others
        return _ADDRESS.sub("", " ".join(str(error).split())) or type(error).__name__


def _refuse_shape(form: Form, shape: tuple[int, ...], found: tuple[int, ...], first: str, name: str) -> None:
    if found[:2] == shape[:2]:
        if form.channels is None:
            raise _ColourFound
        raise AssertionError(found)
    a, b = (f"{width}x{height}" for height, width, *_ in (shape, found))
    raise UserError(
        f"data.size = None: images of several sizes: {first or 'the training part'} has {a} pixels, {name} {b}; "
        "give one, such as data.size=32 or data.size=[<height>,<width>], and data.fit=crop, pad or stretch"
    )


def _split(
    source: Source, data: DataConfig, parts: Mapping[str, _Part], problems: Mapping[str, str], folder: Path
) -> Dataset:
    classes = _classes(source, data, parts)
    rows = {part: stored.rows() for part, stored in parts.items()}
    if "test" not in rows:
        drawn = _stratified(parts["train"].labels[rows["train"]], data.test_fraction, data, _TEST_STREAM)
        rows |= {"test": rows["train"][drawn], "train": rows["train"][~drawn]}
    # content order is a random order: the first are a random sample
    rows["train"], rows["test"] = rows["train"][: data.max_train], rows["test"][: data.max_test]
    if "validation" not in rows:
        drawn = _stratified(parts["train"].labels[rows["train"]], data.validation_fraction, data, _VALIDATION_STREAM)
        rows |= {"validation": rows["train"][drawn], "train": rows["train"][~drawn]}
    fingerprint = hashlib.blake2b(digest_size=16)
    written: dict[str, _Written] = {}
    for split in SPLITS:
        part = parts.get(split, parts["train"])
        (folder / split).mkdir()
        written[split] = _write(part, rows[split], folder / split, split, fingerprint)
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
    write_json(folder / "dataset.json", facts.model_dump())
    return Dataset(folder, facts)


def _classes(source: Source, data: DataConfig, parts: Mapping[str, _Part]) -> list[str]:
    low = min(int(part.labels.min()) for part in parts.values())
    high = max(int(part.labels.max()) for part in parts.values())
    names = data.classes or source.classes or [str(label) for label in range(high + 1)]
    if low < 0 or high >= len(names):
        key = f"data.classes = {data.classes}" if data.classes else f"data.name = {data.name}"
        raise UserError(f"{key}: {len(names)} classes, and labels from {low} to {high}; allowed: 0 to {len(names) - 1}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(
            f"data.name = {data.name}: classes of one name: {', '.join(repeated)}; data.classes names them all"
        )
    return [str(name) for name in names]


@dataclass(frozen=True)
class _Written:
    labels: np.ndarray
    histogram: np.ndarray
    """int64 (channels, 256): how often each value occurs."""


def _write(part: _Part, rows: np.ndarray, folder: Path, split: str, fingerprint: Any) -> _Written:
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
    """Mean and standard deviation of every channel, in [0, 1]."""
    values, total = np.arange(256) / 255, histogram.sum(axis=1)
    mean = histogram @ values / total
    variance = (histogram * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean.round(9).tolist(), np.sqrt(variance).round(9).tolist()


def _stratified(labels: np.ndarray, fraction: float, data: DataConfig, stream: Iterable[int]) -> np.ndarray:
    """Boolean (N,): `fraction` of the examples of each class, rounded, but never all; at least one example in all."""
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
