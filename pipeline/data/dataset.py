"""The prepared data set on disk: canonical arrays in content order, split once, with a fingerprint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ..core.errors import DataChangedError, UserError
from ..core.files import read_json
from .array_file import ArrayFile

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class DatasetFacts(BaseModel):
    """What `dataset.json` says of a prepared data set."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The name under which it was configured, such as `mnist_sample`."""
    source: dict[str, Any]
    """What of the section `data` decides the bytes, see `data.build.source_of`."""
    fingerprint: str
    """32 hexadecimal digits over every byte of every array."""
    image_shape: tuple[int, int, int]
    """(height, width, channels)."""
    classes: tuple[str, ...]
    """Their names, by label."""
    examples: dict[SplitName, int]
    class_counts: dict[SplitName, list[int]]
    """Examples of each class, by label."""
    channel_mean: list[float]
    """Of the training images in [0, 1], by channel."""
    channel_std: list[float]
    test_images_in_train: int
    """Test images whose pixels are also those of a training image."""
    skipped: dict[str, str]
    """Images that could not be decoded, with the reason."""


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, height, width, channels) on disk, `labels` int64 (N,)."""

    images: ArrayFile
    labels: np.ndarray

    def require_unchanged(self) -> None:
        """Raise `DataChangedError` if somebody has written to the images since they were opened."""
        if self.images.changed:
            raise DataChangedError(
                f"{self.images.path}: was changed while it was in use; what came of it is not kept. "
                "`dvc repro --force prepare` (outside of DVC: delete that folder) makes it anew"
            )


@dataclass(frozen=True)
class Dataset:
    """A folder that `write_dataset` made: `{train,validation,test}/{images,labels}.npy` and `dataset.json`."""

    folder: Path
    facts: DatasetFacts

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open a prepared folder. Raises `UserError` where it is not one, or was prepared by an earlier version."""
        path = folder / "dataset.json"
        content = read_json(path, "run `dvc repro prepare`")
        try:
            return cls(folder, DatasetFacts.model_validate(content))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            wrong = f"has no {key}" if first["type"] == "missing" else f"{key}: {first['msg']}"
            raise UserError(f"{path}: {wrong}; run `dvc repro prepare --force`") from error

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
        """What defines these data: the configuration that they were made from, and their fingerprint."""
        return {**self.facts.source, "fingerprint": self.fingerprint}


def summary(facts: DatasetFacts) -> str:
    """Say what a data set is, in lines for the terminal."""
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.examples.items())
    height, width, channels = facts.image_shape
    kind = "grey" if channels == 1 else "colour"
    first = f"{facts.name}: {counts}; {height}x{width} {kind}; fingerprint {facts.fingerprint}"
    left_out = f"\nleft out, as they cannot be decoded: {len(facts.skipped):,}" if facts.skipped else ""
    return f"{first}\n{balance(facts)}{left_out}"


def balance(facts: DatasetFacts) -> str:
    """Say how many training examples the largest class has for each one of the smallest."""
    counts, names = facts.class_counts["train"], facts.classes
    most, least = max(counts), min(counts)
    if most == least:
        return f"{len(names)} classes, each with {most:,} images to train on"
    large, small = names[counts.index(most)], names[counts.index(least)]
    ratio = f"{most / least:.2f} to 1" if least else "none to learn from"
    warning = "; imbalanced: accuracy says little of the rare classes" if not least or most / least >= 3 else ""
    return f"{len(names)} classes, the largest {large} ({most:,}), the smallest {small} ({least:,}): {ratio}{warning}"
