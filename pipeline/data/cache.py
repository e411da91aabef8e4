"""Prepared data for a run outside the DVC pipeline: the pipeline's own where they fit, else a cache."""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from filelock import FileLock

from ..config.schema.data import DataConfig
from ..core import fingerprint
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.paths import PREPARED
from .build import source_of, write_dataset
from .dataset import Dataset
from .providers import fetch, opened
from .providers.folder_provider import signature


def obtain(data: DataConfig, root: Path) -> Dataset:
    """Return the prepared data for `data`: `<root>/data/prepared`, or a folder below `<root>/data/cache`.

    What other code than today's prepared is prepared again. Safe for any number of processes at once.
    Raises `UserError`.
    """
    own = data.provider == "folder"  # what the pipeline prepared may be of images that have changed since
    if not own and _is_for(root / PREPARED, data):
        return Dataset.open(root / PREPARED)
    cache = root / "data" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    name = data.name.replace("/", "-")
    folder = cache / f"{name}-{fingerprint.of_json([source_of(data), signature(data) if own else None], 12)}"
    with FileLock(f"{folder}.lock"):
        if not _is_for(folder, data):
            _make_apart(data, folder)
    return Dataset.open(folder)


def stamp(folder: Path) -> None:
    """Note in `data/cache` by which code a folder was prepared.

    Not inside: every stage depends on the folder's bytes, and another code may well prepare the same.
    """
    write_json(_stamp_of(folder), _stamp(folder))


def _stamp(folder: Path) -> dict[str, str]:
    return {"fingerprint": Dataset.open(folder).fingerprint, "code": fingerprint.of_code("prepare", framework="")}


def _stamp_of(folder: Path) -> Path:
    home = folder.parent if folder.parent.name == "cache" else folder.parent / "cache"
    return home / f"{folder.name}.json"


def _make_apart(data: DataConfig, folder: Path) -> None:
    """Prepare in a process of its own what a library loads a framework for: this one is to load one of its choice."""
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
        stamp(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _is_for(folder: Path, data: DataConfig) -> bool:
    try:
        same_source = Dataset.open(folder).facts.source == source_of(data)
        return bool(same_source and read_json(_stamp_of(folder)) == _stamp(folder))
    except UserError:
        return False
