"""Pixel statistics of a split, in one pass: the count of each value, and the mean image of each class."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..core.progress import steps
from .dataset import Split
from .images import histogram_of

CHUNK_BYTES: Final = 1 << 22  # a sum over a chunk fits into 32 bits
_MEAN_SIDE: Final = 128  # pixels of a mean image, at most: those of all classes are in memory at once


@dataclass(frozen=True)
class Pixels:
    """Pixel statistics of a split."""

    histogram: np.ndarray
    """int64 (channels, 256): count of each pixel value."""
    means: dict[int, np.ndarray]
    """Mean images by label, uint8 (height, width, channels), each side at most 128; no entry for an empty class."""


def survey(split: Split, labels: Collection[int]) -> Pixels:
    """Compute the statistics of a split, read piece by piece. `labels`: the classes that need a mean image."""
    images = split.images
    count, height, width, channels = images.shape
    block = -(-height // _MEAN_SIDE), -(-width // _MEAN_SIDE)
    histogram = np.zeros((channels, 256), np.int64)
    sums: dict[int, np.ndarray] = {}
    size = max(1, CHUNK_BYTES // (height * width * channels))
    with steps("describe", count, "images") as progress:
        for start in range(0, count, size):
            chunk, chunk_labels = images[start : start + size], split.labels[start : start + size]
            histogram += histogram_of(chunk)
            for label in set(np.unique(chunk_labels).tolist()) & set(labels):
                total = _block_sums(chunk[chunk_labels == label].sum(axis=0, dtype=np.uint32), *block)
                sums[label] = total if label not in sums else sums[label] + total
            progress(len(chunk))
    counts = np.bincount(split.labels) * block[0] * block[1]
    return Pixels(histogram, {label: (s / counts[label]).round().astype(np.uint8) for label, s in sums.items()})


def _block_sums(image: np.ndarray, down: int, across: int) -> np.ndarray:
    """Return the sums over blocks of `down` times `across` pixels, int64; leave out incomplete blocks at the edges."""
    height, width = image.shape[0] // down * down, image.shape[1] // across * across
    total = np.zeros((height // down, width // across, image.shape[2]), np.int64)
    for y in range(down):  # five times as fast as a sum over axes of length two or three
        for x in range(across):
            total += image[y:height:down, x:width:across]
    return total
