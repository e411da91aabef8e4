"""Folders of images as a user might have them, and the stages run on them in this process and the current folder."""

import functools
import signal
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import download, prepare
from pipeline.config.compose import compose, load, write
from pipeline.config.schema.data import DataConfig
from pipeline.data.dataset import SPLITS, Dataset

CONTENT = np.random.default_rng(0).integers(0, 256, (200, 5, 6, 3), np.uint8)


def put(path: str | Path, image: int | np.ndarray | Image.Image, **how: object) -> Path:
    """Write an image, or the one of this number."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    content = CONTENT[image] if isinstance(image, int) else image
    (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(path, **how)
    return Path(path)


def fill(root: str = "images", *, start: int = 0, **counts: int) -> list[Path]:
    """So many images of each class, every one another."""
    paths: list[Path] = []
    for name, count in counts.items():
        done = start + len(paths)
        paths += [put(f"{root}/{name}/{number}.png", done + number) for number in range(count)]
    return paths


@functools.cache
def snapshot() -> str:
    """`params.yaml` for the folder `images`; some for validation wherever there are few."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        write(compose(["data=folder", "data.root=images", "data.validation_fraction=0.25"]), path)
        return path.read_text()


def config(*overrides: str) -> DataConfig:
    """As the stages get it."""
    Path("params.yaml").write_text(snapshot(), encoding="utf-8")
    return load(Path("params.yaml"), [f"data.{override}" for override in overrides]).data


def run(*overrides: str, stages: Sequence[str] = ("download", "prepare")) -> Dataset:
    """The stages, as DVC calls them."""
    Path("params.yaml").write_text(snapshot(), encoding="utf-8")
    before = signal.getsignal(signal.SIGTERM)
    try:
        for stage in stages:
            main = {"download": download, "prepare": prepare}[stage].main
            main(["--params", "params.yaml", *(f"data.{override}" for override in overrides)])
    finally:
        signal.signal(signal.SIGTERM, before)
    return Dataset.open(Path("data/prepared"))


def refusal(
    capsys: pytest.CaptureFixture[str], *overrides: str, stages: Sequence[str] = ("download", "prepare")
) -> str:
    """The message with which a stage ends; nothing is left of it."""
    with pytest.raises(SystemExit) as caught:
        run(*overrides, stages=stages)
    assert caught.value.code == 2
    assert not list(Path("data").glob("*.*"))
    return capsys.readouterr().err


def held(dataset: Dataset, *names: str) -> Counter[tuple[bytes, str]]:
    """What is in these splits: pixels and class."""
    found: Counter[tuple[bytes, str]] = Counter()
    for split in (dataset.split(name) for name in SPLITS if name in names):
        labelled = zip(split.images[:], split.labels, strict=True)
        found.update((image.tobytes(), dataset.classes[label]) for image, label in labelled)
    return found


def pixels(dataset: Dataset, kind: str) -> np.ndarray:
    """All images of a class."""
    splits = [dataset.split(name) for name in SPLITS]
    return np.concatenate([split.images[:][split.labels == dataset.classes.index(kind)] for split in splits])
