"""Prepare a data set from a source: order, limit and split its images, and write them piece by piece."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..config.schema.data import DataConfig
from ..core.errors import UserError
from .array_file import ArrayFile
from .dataset import SPLITS, Dataset, DatasetFacts, images_header, labels_content
from .decoding import Findings, Part, decode_all
from .images import histogram_of
from .providers import Source

_CHUNK_BYTES: Final = 1 << 24
_VALIDATION_STREAM: Final = ()  # of data.split_seed
_TEST_STREAM: Final = (1,)
_SAME_IN_BOTH: Final = ("mnist", "fashion_mnist", "kmnist", "cifar10")  # torchvision and tfds prepare the same bytes


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
    try:
        parts, found = decode_all(source, data, folder)
        return _split(source, data, parts, found, folder)
    finally:
        for scratch in folder.glob("*.unordered"):
            scratch.unlink()


def _split(source: Source, data: DataConfig, parts: Mapping[str, Part], found: Findings, folder: Path) -> Dataset:
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
        skipped=found.problems,
        remarks=(*source.remarks, *found.remarks()),
    )
    facts.write(folder / "dataset.json")
    return Dataset(folder, facts)


def _rows_of_splits(data: DataConfig, parts: Mapping[str, Part]) -> dict[str, np.ndarray]:
    """Return by split the rows, int64, of its part; of `train` if the source has no such part."""
    rows = {name: part.rows() for name, part in parts.items()}
    if "test" not in rows:
        leave = 1 if "validation" in rows else 2  # one to train on, and one to validate on
        drawn = _stratified(parts["train"].labels[rows["train"]], data.test_fraction, leave, data, _TEST_STREAM)
        rows |= {"test": rows["train"][drawn], "train": rows["train"][~drawn]}
    # content order is random: the first rows are a random sample
    rows["train"], rows["test"] = rows["train"][: data.max_train], rows["test"][: data.max_test]
    if "validation" not in rows:
        labels = parts["train"].labels[rows["train"]]
        drawn = _stratified(labels, data.validation_fraction, 1, data, _VALIDATION_STREAM)
        rows |= {"validation": rows["train"][drawn], "train": rows["train"][~drawn]}
    return rows


def _classes(source: Source, data: DataConfig, parts: Mapping[str, Part]) -> list[str]:
    """Return the names of the classes, by label. Raises `UserError` if they do not fit the labels or repeat."""
    low = min(int(part.labels.min()) for part in parts.values())
    high = max(int(part.labels.max()) for part in parts.values())
    names = data.classes or source.classes or [str(label) for label in range(high + 1)]
    if low < 0 or high >= len(names):
        key = f"data.classes = {data.classes}" if data.classes else f"data.name = {data.name}"
        raise UserError(f"{key}: {len(names)} classes, and labels from {low} to {high}; allowed: 0 to {len(names) - 1}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"data.name = {data.name}: several classes have the name {', '.join(repeated)}; set data.classes"
        )
    if data.classes and source.classes:
        _refuse_others_names(data.classes, source.classes)
    return [str(name) for name in names]


def _refuse_others_names(names: Sequence[str], upstream: Sequence[str]) -> None:
    """Raise `UserError` if a class is given a name that upstream has for another one: names do not move labels."""
    own = {
        name: label for label, title in enumerate(upstream) for name in (title, title.partition(" - ")[0])
    }  # 0 - zero
    for label, name in enumerate(names[: len(upstream)]):
        if own.get(name, label) != label:
            raise UserError(
                f"data.classes = {list(names)}: calls the images of {upstream[label]} (label {label}) {name}, which is "
                f"the name of label {own[name]}; allowed: names in the order of the labels: {', '.join(upstream)}"
            )


@dataclass(frozen=True)
class _Written:
    """What was written of one split."""

    labels: np.ndarray
    histogram: np.ndarray
    """int64 (channels, 256): count of each pixel value."""


def _write(part: Part, rows: np.ndarray, folder: Path, split: str, fingerprint: Any) -> _Written:
    """Write `images.npy` and `labels.npy` of these rows into `folder`; update the hash `fingerprint` with them."""
    labels = part.labels[rows]
    shape = (len(rows), *part.images.shape[1:])
    histogram = np.zeros((shape[-1], 256), np.int64)
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        fingerprint.update(images_header(split, shape))
        for chunk in _chunks(part.images, rows):
            content = chunk.tobytes()
            file.write(content)
            fingerprint.update(content)
            histogram += histogram_of(chunk)
    np.save(folder / "labels.npy", labels)
    fingerprint.update(labels_content(split, labels))
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


def _stratified(labels: np.ndarray, fraction: float, leave: int, data: DataConfig, stream: Iterable[int]) -> np.ndarray:
    """Draw `fraction` of the examples of each class, rounded, but at least one; return a mask, bool (N,).

    Leaves at least `leave` of each class, which comes first where a class is too small for both. Raises `UserError` if
    that draws no example.
    """
    generator = np.random.default_rng([data.split_seed, *stream] if stream else data.split_seed)
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        drawn[members[: max(0, min(max(1, round(fraction * len(members))), len(members) - leave))]] = True
    if not drawn.any():
        key = "data.test_fraction" if stream else "data.validation_fraction"
        raise UserError(
            f"{key} = {fraction}: leaves none of {len(labels)} examples, as no class has more than {leave}; allowed: "
            "more images in a class"
        )
    return drawn
