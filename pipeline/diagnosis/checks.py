"""Checks that find in seconds, and without changing anything, what would make a later run fail."""

import json
import os
import pwd
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from ..config.compose import CONF, PARAMS, compose, conf_digest, first_job
from ..config.schema.whole import Config
from ..core import frameworks, gpus, working_tree
from ..core.errors import UserError
from ..core.machine import command_environment, usable_cores
from ..core.redaction import redacted
from ..core.sentences import first_of
from ..core.working_tree import GitError
from ..models import device
from ..tracking import health, journal, outbox
from ..tracking.health import Mark
from ..tracking.store import store_uri
from ..training.checkpoint import FOLDER as CHECKPOINTS
from . import location
from .data_check import data
from .dvc_check import dvc

_GIB: Final = 2**30
_LOW_DISK: Final = 2 * _GIB
_FULL_DISK: Final = _GIB // 4
_MOST_NAMED: Final = 3  # names in a sentence


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    mark: Mark
    check: str
    """Name of the check."""
    message: str
    """What was found, and how to fix it if it is a problem."""


def examine(arguments: Sequence[str], root: Path) -> Iterator[Finding]:
    """Run every check and yield its findings; `arguments`: overrides of the configuration, `root`: see `main_root`.

    A check that raises yields a FAIL and does not stop the others.
    """

    @cache
    def config() -> Config:
        return compose(first_job(arguments))

    checks: dict[str, Callable[[], Iterator[tuple[Mark, str]]]] = {
        "python": _python,
        "packages": lambda: _packages(Path(__file__).parents[2] / "requirements.lock"),
        "location": lambda: location.check(root),
        "machine": _machine,
        "gpu": lambda: _gpu(config),
        "disk": lambda: _disk(root),
        "home": _home,
        "store": lambda: health.store(root, _experiment(config)),
        "journal": lambda: _journal(root),
        "checkpoints": lambda: _checkpoints(root),
        "configuration": lambda: _configuration(config, root),
        "data": lambda: _data(config, root),
        "dvc": lambda: dvc(root),
        "git": _git,
        "leftovers": lambda: _leftovers(root),
    }
    for name, check in checks.items():
        try:
            for mark, message in check():
                yield Finding(mark, name, redacted(message))
        except UserError as error:
            yield Finding("FAIL", name, redacted(str(error)))
        except Exception as error:  # see the docstring
            yield Finding("FAIL", name, redacted(f"cannot be checked: {type(error).__name__}: {error}"))


def _python() -> Iterator[tuple[Mark, str]]:
    version, needed = sys.version.split()[0], "3.11 to 3.13"
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield (
        "ok" if good else "FAIL",
        f"{version} at {sys.executable}" + ("" if good else f"; allowed: Python {needed}"),
    )


def _packages(lock: Path) -> Iterator[tuple[Mark, str]]:
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"))) if lock.exists() else {}
    if not pinned:
        yield "warn", f"{lock}: missing, so versions cannot be compared"
    missing, differing = [], []
    for name, version in pinned.items():
        try:
            if (installed := metadata.version(name)) != version:
                differing.append(f"{name} {installed} (pinned: {version})")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield "FAIL", f"missing: {', '.join(missing)}; run `make setup`"
    if differing:
        yield "warn", f"versions differ from {lock.name}, which was tested: {', '.join(differing)}"
    if pinned and not missing and not differing:
        yield "ok", f"{len(pinned)} as in {lock.name}"
    try:
        torch = metadata.version("torch").split("+")[0]
        needed = [r for r in metadata.requires("torchvision") or () if r.replace(" ", "").startswith("torch==")]
        if needed and not needed[0].replace(" ", "").split("==")[1].startswith(torch):
            yield "FAIL", f"torchvision needs {needed[0]} and will not load with torch {torch}; run `make setup`"
    except metadata.PackageNotFoundError:
        pass  # reported above


def _machine() -> Iterator[tuple[Mark, str]]:
    free = psutil.virtual_memory().available / _GIB
    cores, load = usable_cores(), os.getloadavg()[0]
    text = f"{cores} cores, load {load:.1f}, {free:.1f} GiB of memory free"
    if free < 2:
        yield "warn", f"{text}: a framework needs 1 to 2 GiB"
    elif load > cores:
        yield "warn", f"{text}: busy, so measured speeds would be unreliable"
    else:
        yield "ok", text


def _gpu(config: Callable[[], Config]) -> Iterator[tuple[Mark, str]]:
    """Ask each framework, in a process of its own, for the GPU that it would use."""
    cards, hidden = gpus.installed(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not cards:
        if Path("/proc/driver/nvidia").exists() or Path("/dev/nvidia0").exists():
            yield "FAIL", "an NVIDIA device is present, but its driver does not answer; run `nvidia-smi` for details"
        else:
            yield "ok", "none: all frameworks compute on the CPU"
        return
    if not gpus.visible():
        yield "warn", f"{len(cards)} installed, but CUDA_VISIBLE_DEVICES = {hidden!r} hides them"
        return
    yield "ok", ", ".join(f"{gpu.name}, {gpu.memory_bytes / _GIB:.0f} GiB, driver {gpu.driver}" for gpu in cards)
    found = device.ask_all()
    for name, said in found.items():
        title, advice = frameworks.find(name).style.title, "`make setup` installs the libraries of CUDA that it loads"
        yield (
            ("ok", f"{title} uses {said.name}")
            if said.name
            else ("warn", f"{title} uses none ({said.reason}); {advice}")
        )
    asked = config().train.device
    for name in found:
        chosen = device.among(found, asked, name)
        yield (
            "ok" if chosen.type == "gpu" else "warn",
            f"train.device = {asked}: {name} on the {chosen.type}{chosen.reason and f'; {chosen.reason}'}",
        )


def _disk(root: Path) -> Iterator[tuple[Mark, str]]:
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    if not temporary.is_dir():
        yield "warn", f"TMPDIR = {temporary}: is not a folder, so another takes temporary files; export TMPDIR=/tmp"
        temporary = Path(tempfile.gettempdir())
    places = {root: "the repository", temporary: "temporary files"}
    for place, what in places.items():
        free = shutil.disk_usage(place).free
        text = f"{free / _GIB:,.1f} GiB free for {what} ({place})"
        if not os.access(place, os.W_OK):
            yield "FAIL", f"{place}: not writable; allowed: a writable folder"
        elif free < _FULL_DISK:
            yield "FAIL", f"{text}: a run needs about 100 MiB"
        else:
            yield "warn" if free < _LOW_DISK else "ok", text
    for name in ("results", "data", "outputs", "multirun", CHECKPOINTS.name, journal.FOLDER, "mlartifacts"):
        if os.path.lexists(root / name) and not (root / name).is_dir():
            yield "FAIL", f"{root / name}: is no folder, and runs write into one; move it away"
        elif (root / name).exists() and not os.access(root / name, os.W_OK):
            yield "FAIL", f"{root / name}: not writable; runs write there"


def _home() -> Iterator[tuple[Mark, str]]:
    advice = "export HOME=<a writable folder>"
    try:
        home = Path(command_environment().get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        yield (
            "FAIL",
            f"HOME is not set, user {os.getuid()} has no entry in passwd, and `dvc` needs one of them; {advice}",
        )
        return
    writable = home.is_dir() and os.access(home, os.W_OK)
    yield (
        ("ok", str(home))
        if writable
        else ("warn", f"{home}: missing or not writable, so libraries keep no caches; {advice}")
    )


def _journal(root: Path) -> Iterator[tuple[Mark, str]]:
    journals = outbox.find(root)
    refused = [entry for entry in journals if entry.refused]
    waiting = [entry for entry in journals if not entry.refused]
    if waiting:
        size = sum(entry.bytes for entry in waiting) / 2**20
        stores = ", ".join(sorted({store_uri(root, entry.store) for entry in waiting}))
        yield "warn", f"{len(waiting)} journals ({size:,.1f} MiB) wait for {stores}; run `python -m pipeline.sync`"
    for line in (line for entry in waiting for line in entry.unreadable):
        yield "warn", f"{line}; `python -m pipeline.sync` sends the rest, and keeps that line in refused.jsonl"
    for entry in refused:
        reasons = entry.folder / "refused.jsonl"
        yield "warn", f"events of {entry.name} could not be sent; see {reasons}, then delete that folder"
    if not journals:
        yield "ok", "no journal waits for MLflow"


def _checkpoints(root: Path) -> Iterator[tuple[Mark, str]]:
    folder = root / CHECKPOINTS
    states = [path for path in folder.glob("*/state.safetensors") if path.is_file()]
    size, running, killed = sum(path.stat().st_size for path in states) / 2**20, list[str](), list[str]()
    for path in folder.glob("*/holder.json"):
        try:
            holder = json.loads(path.read_text(encoding="utf-8"))
            pid, here = int(holder["pid"]), holder["host"] == socket.gethostname()
        except (OSError, ValueError, KeyError, TypeError) as error:
            wrong = " ".join(f"{type(error).__name__}: {error}".split())
            yield "warn", f"{path}: cannot be read ({wrong}); while nothing is training, delete its folder"
            continue
        if here and psutil.pid_exists(pid):
            running.append(f"{path.parent.name} (process {pid})")
        elif here:
            killed.append(path.parent.name)
    if running:
        yield "ok", f"running: {first_of(running, _MOST_NAMED)}"
    if killed:
        yield "ok", f"killed: {first_of(killed, _MOST_NAMED)}; the same command continues each"
    others = sorted(path.name for path in folder.iterdir() if not _is_checkpoint(path)) if folder.is_dir() else []
    if others:
        yield "warn", f"{folder} holds what is no checkpoint: {first_of(others, _MOST_NAMED)}; move it away"
    if states or not (running or killed or others):
        kept = f"{len(states)} unfinished trainings, {size:,.0f} MiB (kept up to 4 GiB and two weeks)"
        yield "ok", kept if states else "none"


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".lock"


def _configuration(config: Callable[[], Config], root: Path) -> Iterator[tuple[Mark, str]]:
    config()
    snapshot = root / PARAMS
    if not snapshot.exists():
        yield "ok", f"{CONF}: valid; {PARAMS} will be composed"
        return
    match = re.search(r"(?m)^conf_digest: (\w+)", snapshot.read_text(encoding="utf-8"))
    current = match is not None and match.group(1) == conf_digest()
    state = "up to date" if current else "outdated; the next `dvc repro` composes it again"
    yield "ok", f"{CONF}: valid; {PARAMS} is {state}"


def _experiment(config: Callable[[], Config]) -> str:
    try:
        return config().tracking.experiment
    except UserError:  # the check `configuration` reports it
        return ""


def _data(config: Callable[[], Config], root: Path) -> Iterator[tuple[Mark, str]]:
    try:
        settings = config().data
    except UserError:  # the check `configuration` has reported it
        return
    yield from data(settings, root)


def _git() -> Iterator[tuple[Mark, str]]:
    if not shutil.which("git"):
        yield "FAIL", "git: not installed, and DVC needs it; install git"
        return
    try:
        state = working_tree.read()
    except GitError as error:
        yield "warn", str(error)
        return
    commit = f"commit {state.commit[:7]}" if state.commit else "no commit yet"
    kept = f"; {state.diff_files} changed or new files, kept with every run as git.diff" if state.diff else ""
    yield "ok", f"{commit} on {state.branch}{kept}"
    if state.left_out:
        yield "warn", state.missing
    for lock in working_tree.locks():
        advice = "`dvc exp run` and `git commit` fail meanwhile; while no git is running, delete it"
        yield "warn", f"{lock}: a git command is running, or was killed: {advice}"


def _leftovers(root: Path) -> Iterator[tuple[Mark, str]]:
    paths = [*root.glob("mlflow.db.building-*"), *root.glob("data/*.building"), *root.glob("data/scratch-*")]
    if paths:
        names = ", ".join(str(path.relative_to(root)) for path in paths)
        yield "ok", f"left by a process that was killed, can be deleted: {names}"
    else:
        yield "ok", "none"
