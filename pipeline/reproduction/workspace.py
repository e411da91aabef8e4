"""The code of a run as it was: a worktree of git at its commit, with the run's own changes on top."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from ..core import working_tree
from ..core.errors import ResultError, UserError
from ..core.working_tree import GitError

PREFIX: Final = "rerun-"
"""Start of the names of temporary folders."""
_OWNER: Final = "pid"


@dataclass(frozen=True)
class Workspace:
    """A folder with restored code."""

    folder: Path
    commit: str
    tree: str
    """The id of the tree that was restored."""


def own(place: Path) -> None:
    """Note in a temporary folder which process it belongs to, for `tidy`."""
    (place / _OWNER).write_text(f"{os.getpid()}\n", encoding="utf-8")


def tidy(root: Path) -> None:
    """Remove the folders of reruns that were killed, unless a process still works in one. `root`: of their clone."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{_OWNER}"):
        place = owner.parent
        try:
            alive = psutil.pid_exists(int(owner.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # another one removes it, or writes it
            continue
        busy = (process.info["cwd"] or "" for process in psutil.process_iter(["cwd"]))
        if not alive and not any(Path(folder).is_relative_to(place) for folder in busy):
            _run(root, "worktree", "remove", "--force", str(place / "code"))
            shutil.rmtree(place, ignore_errors=True)
    _run(root, "worktree", "prune")


@contextmanager
def restored(root: Path, commit: str, diff: bytes, *, keep: bool = False) -> Iterator[Workspace]:
    """Check out a commit in a new folder and apply a diff; remove the folder at the end, unless `keep`.

    `root`: of a clone. `commit`: empty for a diff from nothing. Raises `UserError` if the clone lacks the commit,
    `ResultError` if the diff does not apply.
    """
    place = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    own(place)
    folder = place / "code"
    try:
        if not commit:  # of a repository without a commit: the diff makes it from nothing
            folder.mkdir()
            _git(folder, "init", "-q")
        elif not _has(root, commit):
            raise UserError(
                f"git.commit = {commit}: is not in this clone; `git fetch --all`, or run this in the clone that the "
                "run was made in"
            )
        else:
            _git(root, "worktree", "add", "--detach", str(folder), commit)
        if diff:
            patch = place / "git.diff"
            patch.write_bytes(diff)
            done = _run(folder, "apply", "--index", "--whitespace=nowarn", str(patch))
            if done.returncode:
                raise ResultError(
                    f"code: git.diff of the run does not apply to {commit[:10] or 'nothing'}: {_said(done)}"
                )
        tree = _git(folder, "write-tree").strip()
        yield Workspace(folder, commit, tree)
    finally:
        if keep:
            (place / _OWNER).unlink()  # else the next rerun would take it for one that was killed
        else:
            _run(root, "worktree", "remove", "--force", str(folder))
            shutil.rmtree(place, ignore_errors=True)
            _run(root, "worktree", "prune")


@dataclass(frozen=True)
class Code:
    """A state of the code: a commit, a diff on top, and the id of the tree that the two make."""

    commit: str
    diff: bytes
    tree: str


def present() -> Code:
    """Return the code of the working folder. Raises `UserError` if git cannot tell it."""
    try:
        state = working_tree.read()
    except GitError as error:
        raise UserError(f"--here: {error}") from error
    return Code(state.commit or "", state.diff, state.tree)


def changed_files(folder: Path, other: Code, root: Path) -> list[str]:
    """Return the files in which a workspace differs from other code; empty if that cannot be restored.

    `folder`: of a `Workspace`.
    """
    try:
        with restored(root, other.commit, other.diff) as before:
            mine = _git(folder, "write-tree").strip()
            listed = _git(root, "diff", "--name-only", before.tree, mine)
    except (UserError, ResultError):
        return []
    return [name for name in listed.splitlines() if name not in ("dvc.lock", "params.yaml")]


def _has(root: Path, commit: str) -> bool:
    return bool(commit) and _run(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def _git(folder: Path, *arguments: str) -> str:
    done = _run(folder, *arguments)
    if done.returncode:
        raise ResultError(f"git {arguments[0]}: {_said(done)}")
    return done.stdout.decode(errors="replace")


def _run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    hooks = ("-c", "core.hooksPath=/dev/null")  # a user's hook on checkout may do anything
    try:
        return subprocess.run(["git", *hooks, "-C", str(folder), *arguments], capture_output=True)
    except FileNotFoundError as error:
        raise UserError("git is not installed; a rerun needs it to restore the code") from error


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = done.stderr.decode(errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("error:", "fatal:"))), " ".join(lines[:1]))
