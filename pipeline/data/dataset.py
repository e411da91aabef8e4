"""The prepared data set on disk: canonical arrays in content order, split once, with a fingerprint."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..config import DataConfig
from ..errors import DataChangedError, UserError
from .stored import StoredArray

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, height, width, channels) on disk, `labels` int64 (N,)."""

    images: StoredArray
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
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open a prepared folder. Raises `UserError` where it is not one."""
        try:
            return cls(folder, json.loads((folder / "dataset.json").read_text()))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / 'dataset.json'}: cannot be read ({error}); run `dvc repro prepare`") from error

    def split(self, name: SplitName) -> Split:
        """One split. Raises `UserError` naming the unreadable file."""
        path = self.folder / name / "images.npy"
        try:
            images = StoredArray.open(path)
            path = path.with_name("labels.npy")
            labels = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run `dvc repro prepare --force`") from error
        return Split(images, labels)

    @property
    def name(self) -> str:
        """The name under which it was configured, such as `mnist_sample`."""
        return str(self.facts["name"])

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over every byte of every array."""
        return str(self.facts["fingerprint"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.facts["image_shape"]
        return height, width, channels

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return tuple(self.facts["classes"])


# The same files, or the same images, in both libraries: who read them does not matter.
_SAME = ("mnist", "fashion_mnist", "kmnist", "cifar10")


def source_of(data: DataConfig) -> dict[str, Any]:
    """What of the configuration defines the prepared bytes.

    Not the mirror, which checksums make irrelevant, nor the place of a user's images, whose content counts.
    """
    same = data.name in _SAME and data.provider in ("torchvision", "tfds")
    return data.model_dump(exclude={"mirror", "root"} | ({"provider"} if same else set()))


def summary(facts: dict[str, Any]) -> str:
    """What a data set is, in lines for the terminal."""
    counts = ", ".join(f"{count:,} {split}" for split, count in facts["examples"].items())
    height, width, channels = facts["image_shape"]
    kind = "grey" if channels == 1 else "colour"
    first = f"{facts['name']}: {counts}; {height}x{width} {kind}; fingerprint {facts['fingerprint']}"
    left_out = f"\nleft out, as they cannot be decoded: {len(facts['skipped']):,}" if facts.get("skipped") else ""
    return f"{first}\n{balance(facts)}{left_out}"


def balance(facts: dict[str, Any]) -> str:
    """How many training examples the largest class has for each one of the smallest, in words."""
    counts, names = facts["class_counts"]["train"], facts["classes"]
    most, least = max(counts), min(counts)
    if most == least:
        return f"{len(names)} classes, each with {most:,} images to train on"
    large, small = names[counts.index(most)], names[counts.index(least)]
    ratio = f"{most / least:.2f} to 1" if least else "none to learn from"
    warning = "; imbalanced: accuracy says little of the rare classes" if not least or most / least >= 3 else ""
    return f"{len(names)} classes, the largest {large} ({most:,}), the smallest {small} ({least:,}): {ratio}{warning}"
