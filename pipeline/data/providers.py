"""Upstream files to a raw folder, and a raw folder to arrays; one function pair per provider."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import DataConfig
from ..errors import UserError
from .idx import read_idx

SAMPLE = Path(__file__).parent / "sample"
TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
FILES = (*TRAIN, *TEST)
SILENCE_SECONDS = 10.0
"""A server that sends nothing for so long is given up."""

Advance = Callable[[int], None]


class RawSplits(NamedTuple):
    """Images uint8 (N, height, width, channels), labels int64 (N,), of the upstream training and test files."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]


def fetch(data: DataConfig, folder: Path, advance: Advance) -> None:
    """Put the upstream files into `folder` (which exists and is empty); `advance(1)` after each of `len(FILES)`.

    Raises `UserError` where they cannot be had, or are not what their checksums say.
    """
    if data.provider == "bundled":
        for name in FILES:
            shutil.copyfile(SAMPLE / name, folder / name)
            advance(1)
    else:
        _fetch_torchvision(data, folder, advance)


def _fetch_torchvision(data: DataConfig, folder: Path, advance: Advance) -> None:
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    checksums = dict(MNIST.resources)
    for name in FILES:
        target = folder / name
        if data.mirror is None:
            sources = MNIST.mirrors
        elif "://" in data.mirror:
            sources = [data.mirror.rstrip("/") + "/"]
        else:
            sources = []
            _copy(Path(data.mirror).expanduser() / name, target)
        problems = []
        for source in sources:
            try:
                with _giving_up_on_silence():
                    download_and_extract_archive(source + name, str(folder), filename=name, md5=checksums[name])
                break
            except Exception as error:  # torchvision lets URLError, RuntimeError and others through
                problems.append(f"{source}{name}: {error}")
        if problems and len(problems) == len(sources):
            raise UserError(
                "; ".join(problems)
                + "\nNo network? data.mirror=<folder or URL with the upstream files>, or data=mnist_sample (bundled)"
            )
        if not check_integrity(str(target), checksums[name]):
            raise UserError(f"{target.name} from data.mirror = {data.mirror}: its MD5 is not {checksums[name]}")
        (folder / target.stem).unlink(missing_ok=True)  # torchvision extracts beside the archive
        advance(1)


@contextmanager
def _giving_up_on_silence() -> Iterator[None]:
    """torchvision opens its connections without a time limit of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UserError(
            f"data.mirror = {source.parent}: {source.name}: {error.strerror}; allowed: a folder or URL that holds "
            f"{', '.join(FILES)}"
        ) from error


def decode(folder: Path) -> RawSplits:
    """Read the files that `fetch` has put into `folder`. Raises `UserError` naming the bad file."""

    def split(images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
        x, y = read_idx(folder / images), read_idx(folder / labels)
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
            raise UserError(f"{folder}: {images} holds {x.shape}, {labels} {y.shape}: not one label per image")
        if len(y) and y.max() > 9:
            raise UserError(f"{folder / labels}: label {y.max()} where 0 to 9 are allowed")
        return x[..., None], y.astype(np.int64)

    return RawSplits(split(*TRAIN), split(*TEST), tuple(str(digit) for digit in range(10)))
