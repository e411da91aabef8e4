"""One walk over a split: how often each pixel value occurs, and the mean image of each class."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..core.progress import steps
from .dataset import Split
from .images import histogram_of

CHUNK_BYTES: Final = 1 << 22  # a sum over it fits into 32 bits
_MEAN_SIDE: Final = 128  # pixels, at most: the means of all classes lie in memory at once


@dataclass(frozen=True)
class Pixels:
    """What the walk has found."""

    histogram: np.ndarray
    """int64 (channels, 256): how often each value occurs."""
    means: dict[int, np.ndarray]
    """By label: uint8 (height, width, channels), of large images in fewer pixels; none of a class without images."""


def survey(split: Split, labels: Collection[int]) -> Pixels:
    """Read the split piece by piece; `labels`: the classes whose mean image is wanted."""
    images = split.images
    count, height, width, channels = images.shape
    block = -(-height // _MEAN_SIDE), -(-width // _MEAN_SIDE)
    histogram = np.zeros((channels, 256), np.int64)
    sums: dict[int, np.ndarray] = {}
    size = max(1, CHUNK_BYTES // (height * width * channels))
    with steps("describe", count, "images") as progress:
        for start in range(0, count, size):
            chunk, own = images[start : start + size], split.labels[start : start + size]
            histogram += histogram_of(chunk)
            for label in set(np.unique(own).tolist()) & set(labels):
                total = _sums(chunk[own == label].sum(axis=0, dtype=np.uint32), *block)
                sums[label] = total if label not in sums else sums[label] + total
            progress(len(chunk))
    counts = np.bincount(split.labels) * block[0] * block[1]
    return Pixels(histogram, {label: (s / counts[label]).round().astype(np.uint8) for label, s in sums.items()})


def _sums(image: np.ndarray, down: int, across: int) -> np.ndarray:
    """Over blocks of `down` times `across` pixels; an incomplete block at the edge is left out."""
    height, width = image.shape[0] // down * down, image.shape[1] // across * across
    total = np.zeros((height // down, width // across, image.shape[2]), np.int64)
    for y in range(down):  # five times as fast as a sum over axes of two or three places
        for x in range(across):
            total += image[y:height:down, x:width:across]
    return total
