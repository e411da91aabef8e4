"""The folder of a run or of a sweep has one owner: what made its results, which alone may go on in it."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf

from ..config.compose import load, write
from ..config.schema.whole import Config
from ..core import claim
from ..core.errors import UserError
from ..core.paths import main_root
from ..equality.fairness import differences, in_words
from . import cache

WRITTEN: Final = (
    *("params.yaml", "models", "plots", "history.csv", "curves.csv", "manifest.json", "summary.json"),
    *("confusion.csv", "inference.json", "metrics.json", "predictions.npz", "runs.json", "scores.json"),
    *("failure.json", "done.json", "job.json"),
)
"""What a run writes into its folder, beside Hydra's own files."""
_HOMES: Final = {"hydra.run.dir": Path("outputs"), "hydra.sweep.dir": cache.FOLDER}
"""Where a folder of a plain name lies, by the key that names it: that of the default in `conf/`."""
_WAY_OUT: Final = "choose another folder, or delete this one"


def path_of(key: str, value: Any, *, below: bool = False) -> Path:
    """Return a folder that an override named; `below`: it must lie inside another. Raises `UserError`."""
    path = Path(str(value))
    if not str(value).strip() or not str(value).isprintable() or value is None:
        shown = "???" if value is None else repr(str(value))
        raise UserError(f"{key} = {shown}: allowed: the name of a folder, in printable characters")
    if any(len(part.encode(errors="replace")) > 240 for part in path.parts):
        raise UserError(
            f"{key} = {str(value)[:80]}...: a name has 240 bytes at most; leave long keys out by "
            "hydra.job.config.override_dirname.exclude_keys, or name the folder otherwise"
        )
    if below and (path.is_absolute() or ".." in path.parts or path == Path()):
        raise UserError(f"{key} = {value}: allowed: a folder inside that of the sweep")
    return path


def free(key: str, value: Any) -> Path:
    """Return a folder that an override named, see `path_of`. Raises `UserError` if it is the repository's.

    A plain name, as in `hydra.sweep.dir=lr_study`, lies beside the folders that are named by the time; a path, as
    `./lr_study`, stays what it is. Hydra takes both from the working folder, where an earlier version left results.
    """
    folder = path_of(key, value)
    claim.require_free(key, folder)
    has_results = any((folder / name).exists() for name in ("sweep.json", "params.yaml"))
    if key in _HOMES and "/" not in str(value) and folder.name not in ("", "..") and not has_results:
        folder = _HOMES[key] / folder
        claim.require_free(key, folder)
    return folder


def named_by_time(composed: Any, section: str) -> bool:
    """Return whether `hydra.<section>.dir` contains the time, as it does unless a user names a folder."""
    return "${now:" in str(OmegaConf.to_yaml(composed.hydra[section]))


def run_folder(folder: Path, config: Config, stack: ExitStack, *, new: bool) -> Path:
    """Claim the folder of a single run until `stack` closes; `new`: take another name if it exists.

    Raises `UserError` if it belongs to another configuration, or to something else; `BusyError` if it is in use.
    """
    key = "hydra.run.dir"
    if new:
        folder = claim.create_new(folder)
        stack.callback(_remove_if_empty, folder)
    claim.lock(folder, stack, key)
    _require_nothing_of(key, folder, ("job.json", "sweep.json"))  # a sweep's
    params = folder / "params.yaml"
    if not params.exists():
        _require_nothing_of(key, folder, WRITTEN)
    elif differing := differences(cache.settings_of(load(params)), cache.settings_of(config)):
        raise UserError(
            f"{key} = {folder}: has the results of another configuration: {in_words(differing)}; {_WAY_OUT}"
        )
    write(config, params)
    return folder


def sweep_folder(
    folder: Path,
    keys: Sequence[str],
    owners: Sequence[str],
    stack: ExitStack,
    *,
    new: bool,
    differing: Callable[[Path], str],
) -> Path:
    """Claim the folder of a sweep until `stack` closes, see `run_folder`; a user's folder may hold the same sweep.

    `differing`: says what tells this sweep from the one in a folder; empty: not known.
    """
    key = "hydra.sweep.dir"
    if new:
        folder = claim.create_new(folder)
        stack.callback(_remove_if_empty, folder)
    claim.lock(folder, stack, key)
    if record := cache.record_of(folder):
        if not record.same(keys, owners):
            what = differing(folder) or "of other values"
            if "train.threads" in what:
                what += " (sweep.parallel and the launcher set train.threads)"
            raise UserError(f"{key} = {folder}: has the results of another sweep: {what}; {_WAY_OUT}")
    else:
        _require_nothing_of(key, folder, (*WRITTEN, "run", "multirun.yaml", "ranking.md", *map(str, range(len(keys)))))
    return folder


def name_of(folder: Path) -> str:
    """Return the name of the sweep in this folder: two that are called alike, in different places, have two names."""
    inside = folder.resolve().parent == (main_root() / cache.FOLDER).resolve()
    return folder.name if inside else f"{folder.resolve().name}-{cache.digest_of(str(folder.resolve()))}"


def without_year(name: str) -> str:
    """Return a sweep's name for MLflow, which cuts long ones: one that is a time needs no year."""
    return re.sub(r"^\d{4}-(?=\d{2}-\d{2}_)", "", name)


def _require_nothing_of(key: str, folder: Path, names: Sequence[str]) -> None:
    if found := [name for name in names if (folder / name).exists()]:
        raise UserError(f"{key} = {folder}: has files of something else, such as {found[0]}; {_WAY_OUT}")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
