"""The provider `bundled`: MNIST digits that come with the package, as IDX files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...config.schema.data import DataConfig
from ...core.errors import UserError
from ..downloader import Upstream
from ..idx import read_idx
from .source import ArraySource

SAMPLE = Path(__file__).parents[1] / "sample"
PARTS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
FILES = tuple(name for pair in PARTS.values() for name in pair)


def fetch(data: DataConfig, upstream: Upstream) -> None:
    """Copy the bundled files into the raw folder."""
    for name in FILES:
        shutil.copyfile(SAMPLE / name, upstream.folder / name)


@contextmanager
def opened(data: DataConfig, upstream: Upstream) -> Iterator[ArraySource]:
    """Read the raw folder's files into memory. Raises `UserError` naming a file that is missing or invalid."""
    arrays = {part: _read(upstream.folder, *names) for part, names in PARTS.items()}
    yield ArraySource(arrays, tuple(str(digit) for digit in range(10)))


def _read(folder: Path, images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = read_idx(folder / images), read_idx(folder / labels)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise UserError(f"{folder}: {images} holds {x.shape}, {labels} {y.shape}: not one label per image")
    return x[..., None], y.astype(np.int64)
