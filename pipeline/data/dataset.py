"""The prepared data set on disk: uint8 arrays in content order, split once, with a fingerprint."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ..core.errors import DataChangedError, UserError
from ..core.records import Record
from .array_file import ArrayFile
from .remarks import Remark

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_CHUNK_IMAGES: Final = 4096
_MOST_CLASSES: Final = 10
"""Names in a sentence."""


class DatasetFacts(Record):
    """The content of `dataset.json`: the facts of a prepared data set."""

    name: str
    """`data.name`, such as `mnist_sample`."""
    source: dict[str, Any]
    """Values of the section `data` that define the bytes, see `data.build.source_of`."""
    fingerprint: str
    """BLAKE2b over every byte of every array, as 32 hexadecimal digits."""
    image_shape: tuple[int, int, int]
    """(height, width, channels)."""
    classes: tuple[str, ...]
    """Names of the classes, by label."""
    examples: dict[SplitName, int]
    """Number of examples, by split."""
    class_counts: dict[SplitName, list[int]]
    """Number of examples of each class, by split and label."""
    channel_mean: list[float]
    """Mean of the pixel values, in [0, 1], of the training images, by channel."""
    channel_std: list[float]
    """Standard deviation of the same."""
    test_images_in_train: int
    """Number of test images that equal a training image, pixel by pixel."""
    skipped: dict[str, str]
    """Names of the images that could not be decoded, with the reason."""
    remarks: tuple[Remark, ...]
    """What else was left out, or not kept."""


def images_header(split: str, shape: Sequence[int]) -> bytes:
    """Return what the fingerprint takes in before the images of a split."""
    return f"{split} uint8 {tuple(shape)}".encode()


def labels_content(split: str, labels: np.ndarray) -> bytes:
    """Return what the fingerprint takes in of the labels of a split."""
    return f"{split} {labels.dtype} {labels.shape}".encode() + labels.tobytes()


@dataclass(frozen=True)
class Split:
    """One split: `images` uint8 (N, height, width, channels), on disk; `labels` int64 (N,), in memory."""

    images: ArrayFile
    labels: np.ndarray

    def require_unchanged(self) -> None:
        """Raise `DataChangedError` if the file of the images was written to since it was opened."""
        if self.images.changed:
            raise DataChangedError(
                f"{self.images.path}: was changed while it was in use; the results are discarded. "
                "`dvc repro --force prepare` (outside of DVC: delete that folder) makes it anew"
            )


@dataclass(frozen=True)
class Dataset:
    """A prepared data set: a folder with `{train,validation,test}/{images,labels}.npy` and `dataset.json`."""

    folder: Path
    facts: DatasetFacts

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open a folder of `build.write_dataset`. Raises `UserError` if it is not one, or of an earlier version."""
        again = "run `dvc repro prepare`"
        return cls(
            folder, DatasetFacts.read(folder / "dataset.json", again, outdated="run `dvc repro prepare --force`")
        )

    def split(self, name: SplitName) -> Split:
        """Open one split. Raises `UserError` naming the unreadable file."""
        path = self.folder / name / "images.npy"
        try:
            images = ArrayFile.open(path)
            path = path.with_name("labels.npy")
            labels = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run `dvc repro prepare --force`") from error
        return Split(images, labels)

    def content_fingerprint(self) -> str:
        """Return the fingerprint of the bytes that are on disk now, as `build.write_dataset` took it of those written.

        Raises `UserError` naming the unreadable file.
        """
        digest = hashlib.blake2b(digest_size=16)
        for name in SPLITS:
            split = self.split(name)
            digest.update(images_header(name, split.images.shape))
            for start in range(0, len(split.images), _CHUNK_IMAGES):
                digest.update(split.images[start : start + _CHUNK_IMAGES].tobytes())
            digest.update(labels_content(name, split.labels))
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """See `DatasetFacts.name`."""
        return self.facts.name

    @property
    def fingerprint(self) -> str:
        """See `DatasetFacts.fingerprint`."""
        return self.facts.fingerprint

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.facts.image_shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.facts.classes

    @property
    def identity(self) -> dict[str, Any]:
        """The values that define the data: `DatasetFacts.source` and the fingerprint."""
        return {**self.facts.source, "fingerprint": self.fingerprint}


def summary(facts: DatasetFacts) -> str:
    """Return a description of a data set, two lines or more for the terminal."""
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.examples.items())
    height, width, channels = facts.image_shape
    kind = "grey" if channels == 1 else "colour"
    first = f"{facts.name}: {counts}; {height}x{width} {kind}; fingerprint {facts.fingerprint}"
    left_out = f"\nleft out, as they cannot be decoded: {len(facts.skipped):,}" if facts.skipped else ""
    return "\n".join([f"{first}\n{balance(facts)}{left_out}", *missing(facts)])


def missing(facts: DatasetFacts) -> list[str]:
    """Return a sentence for each split that has no image of some classes."""
    sentences = []
    for split in SPLITS:
        counts = facts.class_counts[split]
        if empty := [name for name, count in zip(facts.classes, counts, strict=True) if not count]:
            more = f" and {len(empty) - _MOST_CLASSES:,} more" if len(empty) > _MOST_CLASSES else ""
            sentences.append(f"Without a {split} image: {', '.join(empty[:_MOST_CLASSES])}{more}.")
    return sentences


def balance(facts: DatasetFacts) -> str:
    """Return a sentence on the class balance of the training split; from a ratio of 3 to 1 on, it is a warning."""
    counts, names = facts.class_counts["train"], facts.classes
    most, least = max(counts), min(counts)
    if most == least:
        return f"{len(names)} classes, each with {most:,} images to train on"
    large, small = names[counts.index(most)], names[counts.index(least)]
    ratio = f"{most / least:.2f} to 1" if least else "none to learn from"
    warning = "; imbalanced: accuracy says little of the rare classes" if not least or most / least >= 3 else ""
    return f"{len(names)} classes, the largest {large} ({most:,}), the smallest {small} ({least:,}): {ratio}{warning}"
