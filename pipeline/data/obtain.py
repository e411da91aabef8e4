"""Prepared data for a run outside the DVC pipeline: the pipeline's own where it fits, else a cache."""

import shutil
from pathlib import Path

from filelock import FileLock

from ..config import DataConfig
from ..errors import UserError
from ..progress import steps
from .dataset import Dataset, source_of, write_dataset
from .providers import FILES, decode, fetch

PREPARED = Path("data/prepared")
RAW = Path("data/raw")


def obtain(data: DataConfig, root: Path) -> Dataset:
    """The prepared data set for `data`: `<root>/data/prepared`, or `<root>/data/cache/<key>`, made where it is missing.

    Safe for any number of processes at once. Raises `UserError`.
    """
    if _is_for(root / PREPARED, data):
        return Dataset.open(root / PREPARED)
    cache = root / "data" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "-".join(str(value) for value in source_of(data).values())
    with FileLock(f"{folder}.lock"):
        if not _is_for(folder, data):
            make(data, folder)
    return Dataset.open(folder)


def make(data: DataConfig, folder: Path) -> Dataset:
    """Fetch, decode and prepare into `folder`, which appears whole or not at all."""
    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    raw = building / "raw"
    raw.mkdir(parents=True)
    with steps("download", len(FILES), "files") as advance:
        fetch(data, raw, advance)
    prepared = building / "prepared"
    prepared.mkdir()
    write_dataset(decode(raw), data, prepared)
    shutil.rmtree(folder, ignore_errors=True)
    prepared.rename(folder)
    shutil.rmtree(building)
    return Dataset.open(folder)


def _is_for(folder: Path, data: DataConfig) -> bool:
    try:
        return bool(Dataset.open(folder).facts["source"] == source_of(data))
    except (UserError, KeyError, TypeError):
        return False
