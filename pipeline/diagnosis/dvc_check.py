"""Check what DVC reads before it runs a stage: its folder, configuration, locks, and the files of the stages."""

import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil
import yaml

from ..config.compose import PARAMS
from ..tracking.health import Mark

_ADVICE: Final = {
    "dvc.yaml": "correct it, or `git checkout dvc.yaml`",
    "dvc.lock": "`git checkout dvc.lock`, or delete it: every stage runs again",
    str(PARAMS): "`python -m pipeline.config` writes it anew",
}


def dvc(root: Path) -> Iterator[tuple[Mark, str]]:
    """Check that `dvc repro` can start; yield a mark and a message for each finding."""
    if not (root / ".dvc").is_dir():
        yield "FAIL", f"{root}: has no .dvc folder, so `dvc repro` cannot run; clone the repository"
        return
    from dvc.config import Config, ConfigError  # not at the top: may be missing

    try:
        Config(str(root / ".dvc"))
    except (ConfigError, UnicodeDecodeError) as error:
        yield "FAIL", f"{root / '.dvc/config'}: cannot be read: {error}; correct it, or `git checkout .dvc/config`"
    for name, advice in _ADVICE.items():
        if (root / name).exists() and (problem := _problem(root / name)):
            yield "FAIL", f"{root / name}: cannot be read: {problem}; {advice}"
    yield _locks(root)


def _problem(path: Path) -> str:
    """Return what keeps a file from being a YAML mapping; empty if it is one."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        return " ".join(str(error).split())
    return "" if content is None or isinstance(content, dict) else "it is not a YAML mapping"


def _locks(root: Path) -> tuple[Mark, str]:
    locks = root / ".dvc/tmp/rwlock"
    try:
        owners = json.loads(locks.read_text(encoding="utf-8") or "{}") if locks.exists() else {}
    except (OSError, ValueError) as error:
        return "FAIL", f"{locks}: cannot be read: {error}; while no `dvc` is running, delete it"
    if not isinstance(owners, dict):
        return "FAIL", f"{locks}: is not a JSON object; while no `dvc` is running, delete it"
    pids = {int(pid) for pid in re.findall(r'"pid": (\d+)', json.dumps(owners))}
    dead = [pid for pid in pids if not psutil.pid_exists(pid)]
    if pids - set(dead):
        return "warn", f"`dvc` is running: process {', '.join(map(str, pids - set(dead)))}"
    if dead:
        return "ok", f"a lock of process {dead[0]}, which has ended; the next `dvc` command removes it"
    return "ok", f"dvc {metadata.version('dvc')}, no locks" + ("" if (root / "dvc.lock").exists() else "; never run")
