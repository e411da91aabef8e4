"""The cache of finished jobs: those of this sweep before an interruption, and those of earlier sweeps."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..config.schema.whole import Config
from ..core import fingerprint
from ..core.files import write_json
from ..core.machine import steering_variables
from ..core.turns import is_waited_for, turn
from ..data.dataset import Dataset
from ..training.spec import INDIFFERENT

FOLDER: Final = Path("multirun")
"""Holds the folders of all sweeps, relative to the main repository's root."""
_DONE: Final = "done.json"
_SWEEP: Final = "sweep.json"


@dataclass(frozen=True)
class SweepRecord:
    """What a sweep's folder belongs to (`sweep.json`), by the jobs in their order."""

    folder: Path
    name: str
    keys: Sequence[str]
    """See `key_of`."""
    owners: Sequence[str]
    """See `owner_of`; they outlive an edit of the code."""

    def same(self, keys: Sequence[str], owners: Sequence[str]) -> bool:
        """Return whether a sweep with these jobs, in any order, is this one."""
        return Counter(keys) == Counter(self.keys) or Counter(owners) == Counter(self.owners)

    def order(self, keys: Sequence[str], owners: Sequence[str]) -> list[int]:
        """Return the positions of the jobs, in `keys` and `owners`, in the order of this sweep, which is the same."""
        recorded, asked = (self.keys, keys) if Counter(keys) == Counter(self.keys) else (self.owners, owners)
        positions: dict[str, list[int]] = {}
        for position, member in enumerate(asked):
            positions.setdefault(member, []).append(position)
        return [positions[member].pop(0) for member in recorded]


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings that decide a job's results: those of the folder that it owns."""
    return {
        "framework": config.framework,
        "data": config.data.model_dump(),
        "model": config.model.model_dump(),
        "train": config.train.model_dump(exclude=set(INDIFFERENT)),
        "seeds": list(config.seeds),
        "evaluate": config.evaluate.model_dump(),
        "tracking": {"experiment": config.tracking.experiment},
    }


def owner_of(config: Config) -> str:
    """Return a digest of `settings_of`: 16 hexadecimal digits."""
    return fingerprint.of_json(settings_of(config), 16)


def key_of(config: Config, dataset: Dataset) -> str:
    """Return a digest of everything that decides a job's results: 16 hexadecimal digits."""
    facts = settings_of(config) | {
        "data": dataset.identity,
        "code": fingerprint.of_code("job", framework=config.framework),
        "versions": fingerprint.versions(config.framework),
        "variables": steering_variables(config.framework),
    }
    return fingerprint.of_json(facts, 16)


def begin(folder: Path, name: str, keys: Sequence[str], owners: Sequence[str]) -> None:
    """Record in `sweep.json` that the sweep in `folder` has this name, and jobs with these keys and owners."""
    write_json(folder / _SWEEP, {"name": name, "keys": list(keys), "owners": list(owners)})


def record_of(folder: Path) -> SweepRecord | None:
    """Return what the folder of a sweep belongs to; None: it is not the folder of a sweep."""
    content = _read(folder / _SWEEP)
    if not content:
        return None
    return SweepRecord(folder, content.get("name", folder.name), content.get("keys", ()), content.get("owners", ()))


def latest(root: Path, keys: Sequence[str]) -> SweepRecord | None:
    """Return the latest sweep with exactly these keys, in any order; None: not found."""
    for path in sorted((root / FOLDER).glob(f"*/{_SWEEP}"), reverse=True):
        record = record_of(path.parent)
        if record and Counter(record.keys) == Counter(keys):
            return record
    return None


def mark_done(folder: Path, key: str, sweeps: Sequence[str]) -> None:
    """Record in `done.json` that the job in `folder` is finished, has this key, and belongs to these sweeps.

    `key` is that of the process which trained: what another process asked for meanwhile is nothing to the results.
    """
    write_json(folder / _DONE, {"key": key, "sweeps": list(sweeps), "summary": _summary_of(folder)})


def is_marked_done(folder: Path) -> bool:
    """Return whether there is a record that the job in `folder` is finished; `FinishedJobs` verifies what it says."""
    return (folder / _DONE).exists()


def unmark(folder: Path) -> None:
    """Delete the record that the job in `folder` is finished, so that it is trained again."""
    (folder / _DONE).unlink(missing_ok=True)


class FinishedJobs:
    """The finished jobs on this machine by key; their records are read once."""

    def __init__(self, root: Path) -> None:
        self._folders: dict[str, Path] = {}
        for path in sorted((root / FOLDER).rglob(_DONE)):  # the latest sweep comes last, and stays
            self._folders[_read(path).get("key", "")] = path.parent

    def find(self, folder: Path, key: str) -> Path | None:
        """Return a folder with results of a job with this key: `folder` itself, else the latest; None: not found.

        Results that are not those which their record was written for are not believed.
        """
        for candidate in (folder, self._folders.get(key)):
            record = _read(candidate / _DONE) if candidate else {}
            if candidate and record.get("key") == key and record.get("summary") == _summary_of(candidate) != "":
                return candidate
        return None


def sweeps_of(folder: Path) -> list[str]:
    """Return the names of the sweeps that the job in `folder` belongs to."""
    return list(_read(folder / _DONE).get("sweeps", ()))


def digest_of(text: str) -> str:
    """Return four hexadecimal digits that tell two texts apart."""
    return fingerprint.of_json(text, 4)


def _summary_of(folder: Path) -> str:
    """Return a digest of `summary.json`; empty if it cannot be read."""
    try:
        return fingerprint.of_bytes((folder / "summary.json").read_bytes(), 16)
    except OSError:
        return ""


@contextmanager
def turn_of(root: Path, key: str, label: str) -> Iterator[bool]:
    """Keep other sweeps from training the job with this key while the body runs; yield whether one of them just did.

    Waits for it, see `turns.turn`.
    """
    folder = root / FOLDER / f".{key}"
    with turn(folder, label) as waited:
        try:
            yield waited
        finally:
            if not is_waited_for(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a missing or truncated file counts as empty
        return {}
    return content if isinstance(content, dict) else {}
