"""Prepared data for a run outside of the DVC pipeline: those of the pipeline if they fit, else from a cache."""

import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from ..config.schema.data import DataConfig
from ..core import fingerprint
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.paths import PREPARED
from .build import source_of, write_dataset
from .dataset import Dataset
from .inventory import INVENTORY, inventory_of
from .providers import fetch, opened
from .providers.folder_provider import signature


def obtain(data: DataConfig, root: Path) -> Dataset:
    """Return the prepared data for `data`: `<root>/data/prepared`, or a folder below `<root>/data/cache`.

    Prepare them if they are missing, or were prepared by another version of the code. Any number of processes may call
    this at once. Raises `UserError` if the data cannot be fetched or prepared.
    """
    from_folder = data.provider == "folder"  # a user's images may have changed since the pipeline prepared them
    if not from_folder and _is_for(root / PREPARED, data):
        return Dataset.open(root / PREPARED)
    cache = root / "data" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    name = data.name.replace("/", "-")
    folder = cache / f"{name}-{fingerprint.of_json([source_of(data), signature(data) if from_folder else None], 12)}"
    with FileLock(f"{folder}.lock"):
        if not _is_for(folder, data):
            _make_in_process(data, folder)
    return Dataset.open(folder)


def stamp(folder: Path) -> None:
    """Write into `data/cache` which version of the code prepared `folder`.

    Not into the folder: stages depend on its bytes, and another version of the code may prepare the same bytes.
    """
    write_json(_stamp_path(folder), _stamp(folder))


def _stamp(folder: Path) -> dict[str, str]:
    return {"fingerprint": Dataset.open(folder).fingerprint, "code": fingerprint.of_code("prepare", framework="")}


def _stamp_path(folder: Path) -> Path:
    cache = folder.parent if folder.parent.name == "cache" else folder.parent / "cache"
    return cache / f"{folder.name}.json"


def _make_in_process(data: DataConfig, folder: Path) -> None:
    """Prepare in another process if the provider's library imports a framework: this process may be using the other."""
    if data.provider not in ("torchvision", "tfds"):
        make(data, folder)
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            pool.submit(make, data, folder).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"data.name = {data.name}: the process that prepared it was killed; is there enough memory?"
            ) from error


def make(data: DataConfig, folder: Path) -> None:
    """Fetch, decode and prepare a data set into `folder`, which is replaced at the end. Raises `UserError`."""
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
        _keep_inventory(raw / INVENTORY, inventory_of(folder))
        stamp(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _keep_inventory(made: Path, kept: Path) -> None:
    if made.exists():
        kept.parent.mkdir(exist_ok=True)  # of data outside of the cache, as of the DVC stages
        made.replace(kept)
    else:
        kept.unlink(missing_ok=True)


def with_fingerprint(root: Path, fingerprint: str) -> Iterator[Dataset]:
    """Yield the prepared data of this machine that say to have this fingerprint; those of other code are passed by."""
    for folder in (root / PREPARED, *sorted((root / "data/cache").glob("*/"))):
        with suppress(UserError):
            if (dataset := Dataset.open(folder)).fingerprint == fingerprint:
                yield dataset


def _is_for(folder: Path, data: DataConfig) -> bool:
    """Return whether `folder` holds the data for `data`, prepared by the present code."""
    try:
        same_source = Dataset.open(folder).facts.source == source_of(data)
        return bool(same_source and read_json(_stamp_path(folder)) == _stamp(folder))
    except UserError:
        return False
