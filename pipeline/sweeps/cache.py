"""Which jobs of a sweep are done: here, before it was cut short, or in an earlier one."""

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
_DONE: Final = "done.json"


def key_of(config: Config, dataset: Dataset) -> str:
    """Return 16 hexadecimal digits that name all that decides a job's results."""
    facts = {
        "framework": config.framework,
        "data": dataset.identity,
        "model": config.model.model_dump(),
        "train": config.train.model_dump(exclude=set(INDIFFERENT)),
        "seeds": list(config.seeds),
        "evaluate": config.evaluate.model_dump(),
        "experiment": config.tracking.experiment,
        "code": fingerprint.of_code("prepare", "train", "evaluate", framework=config.framework),
        "versions": fingerprint.versions(config.framework),
    }
    return fingerprint.of_json(facts, 16)


def begin(folder: Path, keys: Sequence[str]) -> None:
    """Note that the sweep in `folder` has jobs of these keys."""
    write_json(folder / "sweep.json", {"keys": list(keys)})


def latest(root: Path, keys: Sequence[str]) -> Path | None:
    """Return the folder of the latest sweep of just these jobs."""
    for path in sorted((root / FOLDER).glob("*/sweep.json"), reverse=True):
        if _read(path).get("keys") == list(keys):
            return path.parent
    return None


def mark_done(folder: Path, key: str, sweeps: Sequence[str]) -> None:
    """Note that the job in `folder` is done, and belongs to these sweeps."""
    write_json(folder / _DONE, {"key": key, "sweeps": list(sweeps)})


def unmark(folder: Path) -> None:
    """Have the job in `folder` done again."""
    (folder / _DONE).unlink(missing_ok=True)


def find(root: Path, folder: Path, key: str) -> Path | None:
    """Return the folder that holds the results of a job of that key: `folder` itself, else the latest."""
    others = sorted((root / FOLDER).glob(f"*/*/{_DONE}"), reverse=True)
    for path in [folder / _DONE, *others]:
        if _read(path).get("key") == key and (path.parent / "summary.json").exists():
            return path.parent
    return None


def sweeps_of(folder: Path) -> list[str]:
    """Return the sweeps that the job in `folder` belongs to."""
    return list(_read(folder / _DONE).get("sweeps", ()))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # cut short: as if it were not there
        return {}
    return content if isinstance(content, dict) else {}
