"""One owner for each folder of results: new ones are made exclusively, others are locked, the project's are refused."""

import fcntl
import os
import subprocess
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Final

from .errors import BusyError, UserError
from .files import in_the_way, make_folder
from .paths import main_root

_RESERVED: Final = (
    *(".git", ".dvc", "checkpoints", "conf", "data", "docs", "journal", "mlartifacts"),
    *("mlruns", "pipeline", "results", "tests"),
)
"""Folders of the repository that commands, DVC or git keep for themselves."""
_PARENTS: Final = ("outputs", "multirun")
"""Folders of the repository that hold those of all runs, or of all sweeps."""


def create_new(folder: Path) -> Path:
    """Create `folder`, or `folder_1`, `folder_2`, ... if that is taken; no two processes create the same.

    Raises `UserError` if there can be no such folder.
    """
    make_folder(folder.parent)
    for number in count():
        candidate = folder.with_name(f"{folder.name}_{number}") if number else folder
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("count() does not end")


def lock(folder: Path, stack: ExitStack, key: str = "") -> None:
    """Create the folder if it is missing, and lock it until `stack` closes or the process ends.

    Raises `BusyError` if another process holds the lock, and `UserError`, which begins with `key`, if there can be no
    such folder. On a file system that cannot lock folders, as some network file systems, the folder stays unlocked.
    """
    make_folder(folder, f"{key} = {folder}" if key else "")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(f"{folder}: another process writes to it; wait for it, or choose another folder") from error
    except OSError:
        return


def require_free(key: str, folder: Path) -> None:
    """Raise `UserError`, which begins with `key`, if the folder is the repository's, or holds files that git tracks."""
    resolved, root = folder.resolve(), main_root().resolve()
    way_out = "choose a folder of its own, such as outputs/mine"
    if resolved.exists() and not resolved.is_dir():
        raise UserError(f"{key} = {folder}: is a file; {way_out}")
    if blocked := in_the_way(folder):
        raise UserError(f"{key} = {folder}: cannot be made ({blocked} is no folder); {way_out}")
    if resolved == root or resolved in root.parents:
        raise UserError(f"{key} = {folder}: holds this repository, whose files would be overwritten; {way_out}")
    for name in _RESERVED:
        if (root / name) in (resolved, *resolved.parents):
            raise UserError(f"{key} = {folder}: {name}/ belongs to the pipeline; {way_out}")
    for name in _PARENTS:
        if resolved == (root / name).resolve():
            raise UserError(f"{key} = {folder}: {name}/ holds the folders of all; {way_out}")
    if tracked := _tracked(resolved):
        raise UserError(f"{key} = {folder}: holds files that git tracks, such as {tracked}; {way_out}")


def _tracked(folder: Path) -> str:
    """Return a file below the folder that git tracks; empty if there is none, or no git."""
    if not folder.is_dir():
        return ""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--", "."]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return os.fsdecode(done.stdout.split(b"\0")[0]) if done.returncode == 0 else ""
