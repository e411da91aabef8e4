"""The provenance of a run: code, DVC stage and experiment, and the MD5 of the data in `dvc.lock`."""

import os
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from . import working_tree
from .redaction import redacted
from .working_tree import GitError, WorkingTree

_COMMAND: Final = "PIPELINE_COMMAND"
RERUN: Final = "rerun"
"""In place of a DVC stage, what trains a run again."""


@lru_cache
def code() -> WorkingTree | GitError:
    """Return the state of the working folder as git sees it, or why git sees none; the same all through a process."""
    try:
        return working_tree.read()
    except GitError as error:
        return error


def git() -> WorkingTree | None:
    """Return the state of the working folder; None if git cannot tell it."""
    state = code()
    return None if isinstance(state, GitError) else state


def branch() -> str | None:
    """Return the branch of the code; None if git cannot tell it.

    In a temporary workspace of DVC's, which has no branch, it is that of the main folder if that is at the same commit.
    """
    state = git()
    root = os.environ.get("DVC_ROOT")
    if state and state.branch == "HEAD" and root and os.environ.get("DVC_EXP_NAME"):
        return working_tree.branch_at(Path(root), state.commit) or state.branch
    return state.branch if state else None


def missing() -> str:
    """Return in one line what of the code is not kept with a run; empty if everything is."""
    state = code()
    return str(state) if isinstance(state, GitError) else state.missing


def facts() -> dict[str, Any]:
    """Return what is known of the code, as JSON values."""
    state = code()
    if isinstance(state, GitError):
        return {"missing": str(state)}
    names = ("commit", "branch", "tree", "dirty", "left_out")
    return {name: getattr(state, name) for name in names}


def dvc() -> dict[str, str]:
    """Return the DVC stage and experiment of this process; empty strings if there are none."""
    return {"stage": os.environ.get("DVC_STAGE", ""), "exp": os.environ.get("DVC_EXP_NAME", "")}


def origin() -> dict[str, Any]:
    """Return the MLflow tags for the code, DVC stage and DVC experiment; None: unknown."""
    state = git()
    return {
        "git.commit": state.commit if state else None,
        "git.dirty": state.dirty if state else None,
        "git.tree": state.tree if state else None,
        "dvc.stage": dvc()["stage"] or None,
        "dvc.exp": dvc()["exp"] or None,
    }


def remember_command(name: str, arguments: Sequence[str]) -> None:
    """Keep the command line of `python -m pipeline.<name>` for this process and those that it starts."""
    os.environ.setdefault(_COMMAND, shlex.join(["python", "-m", f"pipeline.{name}", *arguments]))


def command() -> str:
    """Return the command line that a person, or DVC, typed, without secrets; empty: unknown."""
    return redacted(os.environ.get(_COMMAND, ""))


def is_rerun() -> bool:
    """Return whether this process trains a run again, see `pipeline.reproduction`."""
    return dvc()["stage"] == RERUN


def data_source(path: str, name: str) -> dict[str, str]:
    """Return the source of the data set `name`: its path, and its MD5 in `dvc.lock`, empty if it has none."""
    return {"dvc.path": path, "dvc.md5": data_md5(path) or "", "name": name}


def data_md5(path: str) -> str | None:
    """Return the MD5 of the output `path` in `dvc.lock`; None if it has no entry or the file cannot be read."""
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", ())]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
    return next((out["md5"] for out in outs if out["path"] == path), None)
