"""Data sets that are made up: their files as a library wants them, and what the stages make of these."""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from libraries import library
from PIL import Image

from pipeline.data.dataset import Dataset

GENERATOR = np.random.default_rng(0)


def noise(count: int, *shape: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    return GENERATOR.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % classes


def tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def md5(content: bytes | Path) -> str:
    return hashlib.md5(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()


def jpeg(width: int, height: int, value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (value, 255 - value, 0)).save(out, "jpeg", quality=95)
    return out.getvalue()


def beside_a_mirror(folder: Path) -> Path:
    """An empty workspace in `folder`, with an empty `mirror` beside it."""
    (folder / "mirror").mkdir()
    (folder / "workspace").mkdir()
    return folder / "workspace"


def prepare(provider: str, workspace: Path, *overrides: str) -> Dataset:
    """Both stages, the files from the folder `mirror` unless another is given."""
    usual = ["data.validation_fraction=0.2", f"data.mirror={workspace.parent / 'mirror'}"]
    for stage in ("download", "prepare"):
        done = library(provider).run(workspace, stage, *usual, *overrides)
        assert done.code == 0, done.errors
    assert {path.name for path in (workspace / "data").iterdir()} == {"raw", "prepared", "cache"}
    return Dataset.open(workspace / "data/prepared")


def examples(images: Any, labels: Any) -> Counter[tuple[bytes, int]]:
    return Counter((np.asarray(image).tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def held(dataset: Dataset, *names: Any) -> Counter[tuple[bytes, int]]:
    found: Counter[tuple[bytes, int]] = Counter()
    for name in names:
        split = dataset.split(name)
        found += examples(split.images[:], split.labels)
    return found
