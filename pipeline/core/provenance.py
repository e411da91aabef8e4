"""Where a run comes from: the commit, the stage and experiment of DVC, the data as DVC keeps them."""

import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

# params.yaml is the composed configuration, which is logged as such, and the pipeline itself rewrites dvc.lock
_CHANGED: Final = ("--", ".", ":(exclude)dvc.lock", ":(exclude)params.yaml")
_MOST_DIFF: Final = 1_000_000  # characters


@dataclass(frozen=True)
class Commit:
    """The commit that is checked out, and how the working tree differs from it."""

    commit: str
    branch: str
    dirty: bool
    diff: str
    """At most 1 MB of it."""


@lru_cache
def git() -> Commit | None:
    """Return the commit of the working folder; None outside of a git repository."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    dirty = bool(_git("status", "--porcelain", *_CHANGED))
    diff = _git("diff", "HEAD", *_CHANGED)[:_MOST_DIFF] if dirty else ""
    return Commit(commit, _git("rev-parse", "--abbrev-ref", "HEAD"), dirty, diff)


def dvc() -> dict[str, str]:
    """Return the DVC stage and experiment that this process runs for; empty values outside of one."""
    return {"stage": os.environ.get("DVC_STAGE", ""), "exp": os.environ.get("DVC_EXP_NAME", "")}


def origin() -> dict[str, Any]:
    """Return the tags that say of what commit and for what stage and experiment of DVC a run is; None: unknown."""
    commit = git()
    return {
        "git.commit": commit.commit if commit else None,
        "git.dirty": commit.dirty if commit else None,
        "dvc.stage": dvc()["stage"] or None,
        "dvc.exp": dvc()["exp"] or None,
    }


def data_source(path: str, name: str) -> dict[str, str]:
    """Say where the data `name` come from: a path, and the MD5 under which DVC keeps it, empty where it does not."""
    return {"dvc.path": path, "dvc.md5": data_md5(path) or "", "name": name}


def data_md5(path: str) -> str | None:
    """Return the MD5 under which DVC keeps the output `path` of this pipeline; None where `dvc.lock` has none."""
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
