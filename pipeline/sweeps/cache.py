"""The cache of finished jobs: those of this sweep before an interruption, and those of earlier sweeps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..config.schema.whole import Config
from ..core import fingerprint
from ..core.files import write_json
from ..data.dataset import Dataset
from ..training.spec import INDIFFERENT

FOLDER: Final = Path("multirun")
"""Holds the folders of all sweeps, relative to the main repository's root."""
_DONE: Final = "done.json"


def key_of(config: Config, dataset: Dataset) -> str:
    """Return a digest of everything that decides a job's results: 16 hexadecimal digits."""
    facts = {
        "framework": config.framework,
        "data": dataset.identity,
        "model": config.model.model_dump(),
        "train": config.train.model_dump(exclude=set(INDIFFERENT)),
        "seeds": list(config.seeds),
        "evaluate": config.evaluate.model_dump(),
        "experiment": config.tracking.experiment,
        "code": fingerprint.of_code("job", framework=config.framework),
        "versions": fingerprint.versions(config.framework),
    }
    return fingerprint.of_json(facts, 16)


def begin(folder: Path, keys: Sequence[str]) -> None:
    """Record in `sweep.json` that the sweep in `folder` has jobs with these keys."""
    write_json(folder / "sweep.json", {"keys": list(keys)})


def latest(root: Path, keys: Sequence[str]) -> Path | None:
    """Return the folder of the latest sweep with exactly these keys in this order; None: not found."""
    for path in sorted((root / FOLDER).glob("*/sweep.json"), reverse=True):
        if _read(path).get("keys") == list(keys):
            return path.parent
    return None


def mark_done(folder: Path, key: str, sweeps: Sequence[str]) -> None:
    """Record in `done.json` that the job in `folder` is finished and belongs to these sweeps."""
    write_json(folder / _DONE, {"key": key, "sweeps": list(sweeps)})


def unmark(folder: Path) -> None:
    """Delete the record that the job in `folder` is finished, so that it is trained again."""
    (folder / _DONE).unlink(missing_ok=True)


def find(root: Path, folder: Path, key: str) -> Path | None:
    """Return a folder with results of a job with this key: `folder` itself, else the latest; None: not found."""
    others = sorted((root / FOLDER).glob(f"*/*/{_DONE}"), reverse=True)
    for path in [folder / _DONE, *others]:
        if _read(path).get("key") == key and (path.parent / "summary.json").exists():
            return path.parent
    return None


def sweeps_of(folder: Path) -> list[str]:
    """Return the names of the sweeps that the job in `folder` belongs to."""
    return list(_read(folder / _DONE).get("sweeps", ()))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a missing or truncated file counts as empty
        return {}
    return content if isinstance(content, dict) else {}
