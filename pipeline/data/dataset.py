"""The prepared data set on disk: canonical arrays in content order, split once, with a fingerprint."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..config import DataConfig
from ..errors import UserError
from .providers import RawSplits

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, height, width, channels) and `labels` int64 (N,), memory-mapped."""

    images: np.ndarray
    labels: np.ndarray


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
        """One split, memory-mapped. Raises `UserError` naming the unreadable file."""
        arrays = []
        for part in ("images", "labels"):
            path = self.folder / name / f"{part}.npy"
            try:
                arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
            except (OSError, ValueError, EOFError) as error:
                raise UserError(f"{path}: cannot be read ({error}); run `dvc repro prepare --force`") from error
        return Split(*arrays)

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


def source_of(data: DataConfig) -> dict[str, Any]:
    """What of the configuration defines the prepared bytes: all but the mirror, which checksums make irrelevant."""
    return data.model_dump(exclude={"mirror"})


def write_dataset(raw: RawSplits, data: DataConfig, folder: Path) -> Dataset:
    """Order, limit, split and store `raw` in the existing `folder`."""
    images, labels = _limit(*_content_order(*raw.train), data.max_train)
    held_out = _stratified(labels, data.validation_fraction, data.split_seed)
    splits = {
        "train": (images[~held_out], labels[~held_out]),
        "validation": (images[held_out], labels[held_out]),
        "test": _limit(*_content_order(*raw.test), data.max_test),
    }
    fingerprint = hashlib.blake2b(digest_size=16)
    for name, (x, y) in splits.items():
        (folder / name).mkdir()
        np.save(folder / name / "images.npy", x)
        np.save(folder / name / "labels.npy", y)
        for array in (x, y):
            fingerprint.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    x = splits["train"][0]
    facts = {
        "name": data.name,
        "source": source_of(data),
        "fingerprint": fingerprint.hexdigest(),
        "image_shape": list(x.shape[1:]),
        "classes": list(raw.classes),
        "examples": {name: len(y) for name, (_, y) in splits.items()},
        "class_counts": {name: np.bincount(y, minlength=len(raw.classes)).tolist() for name, (_, y) in splits.items()},
        "channel_mean": (x.mean(axis=(0, 1, 2), dtype=np.float64) / 255).round(9).tolist(),
        "channel_std": (x.std(axis=(0, 1, 2), dtype=np.float64) / 255).round(9).tolist(),
    }
    (folder / "dataset.json").write_text(json.dumps(facts, indent=2) + "\n")
    return Dataset(folder, facts)


def _content_order(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by hash of image and label: whichever library read the files, in whatever order, the result is the same."""
    images = np.ascontiguousarray(images)
    hashes = [
        hashlib.blake2b(image.tobytes() + label.tobytes(), digest_size=16).digest()
        for image, label in zip(images, labels.astype("<i8"), strict=True)
    ]
    order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__))
    return images[order], labels[order]


def _limit(images: np.ndarray, labels: np.ndarray, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    return images[:most], labels[:most]  # content order is a random order: the first are a random sample


def _stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Boolean (N,): `fraction` of the examples of each class, rounded, and at least one example in all."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        held_out[members[: round(fraction * len(members))]] = True
    if not held_out.any() or held_out.all():
        raise UserError(
            f"data.validation_fraction = {fraction}: leaves {int(held_out.sum())} of {len(labels)} examples for "
            "validation; allowed: a fraction that leaves at least one on each side"
        )
    return held_out
