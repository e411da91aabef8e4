"""Which jobs of a sweep are done: here, before it was cut short, or in an earlier one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .config import Config
from .data.dataset import Dataset
from .identity import code_digest, versions

FOLDER: Final = Path("multirun")
_DONE: Final = "done.json"


def key_of(config: Config, dataset: Dataset) -> str:
    """16 hexadecimal digits that name all that decides a job's results."""
    facts = {
        "framework": config.framework,
        "data": {**dataset.facts["source"], "fingerprint": dataset.fingerprint},
        "model": config.model.model_dump(),
        "train": config.train.model_dump(exclude={"memory_mebibytes", "checkpoint_minutes"}),
        "seeds": list(config.seeds),
        "evaluate": config.evaluate.model_dump(),
        "experiment": config.tracking.experiment,
        "code": code_digest(config.framework),
        "versions": versions(config.framework),
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()


def begin(folder: Path, keys: Sequence[str]) -> None:
    """The sweep in `folder` has jobs of these keys."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({"keys": list(keys)}, indent=2) + "\n")


def latest(root: Path, keys: Sequence[str]) -> Path | None:
    """The folder of the latest sweep of just these jobs."""
    for path in sorted((root / FOLDER).glob("*/sweep.json"), reverse=True):
        if _read(path).get("keys") == list(keys):
            return path.parent
    return None


def mark_done(folder: Path, key: str, sweeps: Sequence[str]) -> None:
    """The job in `folder` is done, and belongs to these sweeps."""
    (folder / _DONE).write_text(json.dumps({"key": key, "sweeps": list(sweeps)}, indent=2) + "\n")


def unmark(folder: Path) -> None:
    """The job in `folder` is to be done again."""
    (folder / _DONE).unlink(missing_ok=True)


def find(root: Path, folder: Path, key: str) -> Path | None:
    """The folder that holds the results of a job of that key: `folder` itself, else the latest."""
    others = sorted((root / FOLDER).glob(f"*/*/{_DONE}"), reverse=True)
    for path in [folder / _DONE, *others]:
        if _read(path).get("key") == key and (path.parent / "summary.json").exists():
            return path.parent
    return None


def sweeps_of(folder: Path) -> list[str]:
    """The sweeps that the job in `folder` belongs to."""
    return list(_read(folder / _DONE).get("sweeps", ()))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):  # cut short: as if it were not there
        return {}
    return found if isinstance(found, dict) else {}
