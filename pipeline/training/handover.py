"""The result of a training, left for the processes that were asked for the same and have waited for it."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..core.files import atomic_directory, atomic_file, read_json, read_text, write_json
from ..core.turns import is_waited_for
from ..models import backend
from .results import SeedResult, read_history
from .spec import RunSpec

_RESULT: Final = "result"
_ASKED: Final = "asked.json"
_FILES: Final = ("history.csv", "curves.csv", "summary.json", "runs.json")


def leave(folder: Path, spec: RunSpec, asked: str) -> None:
    """Copy the result into the checkpoint's `folder` if a process waits for it, while this one still holds the lock.

    `asked`: digest of what decides, beside the bits, where the result is logged.
    """
    if is_waited_for(folder):
        # on a full disk the other process trains itself
        with suppress(OSError), atomic_directory(folder / _RESULT) as building:
            for name in _names(spec, spec.output):
                _copy(spec.output / name, building / name)
            write_json(building / _ASKED, asked)


def take(folder: Path, spec: RunSpec, asked: str) -> list[SeedResult] | None:
    """Copy the result that was left in `folder` into `spec.output`, and return it by seed.

    None: there is none, or it was logged to another place than this process was asked to.
    """
    result = folder / _RESULT
    if not result.exists() or read_json(result / _ASKED) != asked:
        return None
    for name in _names(spec, result):
        _copy(result / name, spec.output / name)
    rows = read_history(read_text(spec.output / "history.csv"))
    return [SeedResult(seed, [row for row in rows if row.seed == seed]) for seed in spec.seeds]


def discard(folder: Path) -> None:
    """Delete a result that nobody waits for any more."""
    shutil.rmtree(folder / _RESULT, ignore_errors=True)


def _names(spec: RunSpec, output: Path) -> Iterator[Path]:
    """Yield the files of a result, relative to its folder: all but `manifest.json`, which holds also what is no key."""
    yield from map(Path, _FILES)
    for seed in spec.seeds:
        yield from (path.relative_to(output) for path in backend.model_folder(output, seed).iterdir())


def _copy(source: Path, target: Path) -> None:
    with atomic_file(target) as part:
        shutil.copyfile(source, part)
