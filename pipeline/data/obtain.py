"""Prepared data for a run outside the DVC pipeline: the pipeline's own where it fits, else a cache."""

import hashlib
import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from filelock import FileLock

from ..config import DataConfig
from ..errors import UserError
from .dataset import Dataset, source_of
from .providers import fetch, opened
from .providers.folder_provider import signature
from .writing import write_dataset

PREPARED = Path("data/prepared")
RAW = Path("data/raw")


def obtain(data: DataConfig, root: Path) -> Dataset:
    """The prepared data set for `data`: `<root>/data/prepared`, or `<root>/data/cache/<key>`, made where it is missing.

    Safe for any number of processes at once. Raises `UserError`.
    """
    own = data.provider == "folder"  # what the pipeline prepared may be of images that have changed since
    if not own and _is_for(root / PREPARED, data):
        return Dataset.open(root / PREPARED)
    cache = root / "data" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    key = json.dumps([source_of(data), signature(data) if own else None], sort_keys=True)
    name = data.name.replace("/", "-")
    folder = cache / f"{name}-{hashlib.blake2b(key.encode(), digest_size=6).hexdigest()}"
    with FileLock(f"{folder}.lock"):
        if not _is_for(folder, data):
            _make_apart(data, folder)
    return Dataset.open(folder)


def _make_apart(data: DataConfig, folder: Path) -> None:
    """The libraries load a framework each: in a process of their own, as this one is to load one of its choice."""
    if data.provider not in ("torchvision", "tfds"):
        make(data, folder)
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
        try:
            apart.submit(make, data, folder).result()
        except BrokenProcessPool as error:
            raise UserError(f"data.name = {data.name}: its preparation was killed; is there memory enough?") from error


def make(data: DataConfig, folder: Path) -> None:
    """Fetch, decode and prepare into `folder`, which appears whole or not at all."""
    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    raw, prepared = building / "raw", building / "prepared"
    raw.mkdir(parents=True)
    prepared.mkdir()
    try:
        fetch(data, raw)
        with opened(data, raw) as source:
            write_dataset(source, data, prepared)
        shutil.rmtree(folder, ignore_errors=True)
        prepared.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _is_for(folder: Path, data: DataConfig) -> bool:
    try:
        return bool(Dataset.open(folder).facts["source"] == source_of(data))
    except (UserError, KeyError, TypeError):
        return False
