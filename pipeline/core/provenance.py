"""The provenance of a run: commit, DVC stage and experiment, and the MD5 of the data in `dvc.lock`."""

import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

# params.yaml is the composed configuration, which is logged separately; the pipeline itself rewrites dvc.lock
_CHANGED: Final = ("--", ".", ":(exclude)dvc.lock", ":(exclude)params.yaml")
_MOST_DIFF: Final = 1_000_000  # characters


@dataclass(frozen=True)
class Commit:
    """The checked-out commit, and how the working tree differs from it."""

    commit: str
    branch: str
    dirty: bool
    diff: str
    """The first million characters of `git diff`; empty if not dirty."""


@lru_cache
def git() -> Commit | None:
    """Return the commit of the working folder; None outside a git repository."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    dirty = bool(_git("status", "--porcelain", *_CHANGED))
    diff = _git("diff", "HEAD", *_CHANGED)[:_MOST_DIFF] if dirty else ""
    return Commit(commit, _git("rev-parse", "--abbrev-ref", "HEAD"), dirty, diff)


def dvc() -> dict[str, str]:
    """Return the DVC stage and experiment of this process; empty strings if there are none."""
    return {"stage": os.environ.get("DVC_STAGE", ""), "exp": os.environ.get("DVC_EXP_NAME", "")}


def origin() -> dict[str, Any]:
    """Return the MLflow tags for the commit, DVC stage and DVC experiment; None: unknown."""
    commit = git()
    return {
        "git.commit": commit.commit if commit else None,
        "git.dirty": commit.dirty if commit else None,
        "dvc.stage": dvc()["stage"] or None,
        "dvc.exp": dvc()["exp"] or None,
    }


def data_source(path: str, name: str) -> dict[str, str]:
    """Return the source of the data set `name`: its path, and its MD5 in `dvc.lock`, empty if it has none."""
    return {"dvc.path": path, "dvc.md5": data_md5(path) or "", "name": name}


def data_md5(path: str) -> str | None:
    """Return the MD5 of the output `path` in `dvc.lock`; None if it has no entry or the file cannot be read."""
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text())
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", ())]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
    return next((out["md5"] for out in outs if out["path"] == path), None)


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
