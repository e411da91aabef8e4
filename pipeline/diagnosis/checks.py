"""What would fail later, as far as it can be seen in seconds and without changing anything."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from ..config.compose import CONF, PARAMS, compose, conf_digest
from ..config.schema.whole import Config
from ..core.errors import UserError
from ..core.machine import machine
from ..core.paths import PREPARED
from ..tracking import health, journal, outbox
from ..tracking.health import ANSWER_SECONDS, Mark
from ..tracking.store import store_uri
from ..training.checkpoint import FOLDER as CHECKPOINTS

_GIB: Final = 2**30
_LITTLE_DISK: Final = 2 * _GIB
_NO_DISK: Final = _GIB // 4
_HOSTS: Final = {"torchvision": "ossci-datasets.s3.amazonaws.com", "tfds": "storage.googleapis.com"}


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    mark: Mark
    what: str
    said: str
    """With the way out, where there is something to mend."""


def examine(arguments: Sequence[str], root: Path) -> Iterator[Finding]:
    """Everything that can be seen without starting anything; `arguments`: overrides of the configuration."""
    checks: dict[str, Callable[[], Iterator[tuple[Mark, str]]]] = {
        "python": _python,
        "packages": lambda: _packages(Path(__file__).parents[2] / "requirements.lock"),
        "machine": _machine,
        "gpu": _gpu,
        "disk": lambda: _disk(root),
        "store": lambda: health.store(root),
        "journal": lambda: _journal(root),
        "checkpoints": lambda: _checkpoints(root),
        "configuration": lambda: _configuration(arguments, root),
        "data": lambda: _data(compose(arguments), root),
        "dvc": lambda: _dvc(root),
        "git": _git,
        "leftovers": lambda: _leftovers(root),
    }
    for what, check in checks.items():
        try:
            for mark, said in check():
                yield Finding(mark, what, said)
        except UserError as error:
            if what != "data":  # the configuration's, and told there
                yield Finding("FAIL", what, str(error))
        except Exception as error:  # a check that fails says so, and hides none of the others
            yield Finding("FAIL", what, f"cannot be checked: {type(error).__name__}: {error}")


def _python() -> Iterator[tuple[Mark, str]]:
    version, wanted = sys.version.split()[0], "3.11"
    good = version.startswith(f"{wanted}.")
    yield (
        "ok" if good else "FAIL",
        f"{version} at {sys.executable}" + ("" if good else f"; Python {wanted} is needed"),
    )


def _packages(lock: Path) -> Iterator[tuple[Mark, str]]:
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", lock.read_text())) if lock.exists() else {}
    if not pinned:
        yield "warn", f"{lock}: not there; versions cannot be compared"
    missing, others = [], []
    for name, version in pinned.items():
        try:
            if (found := metadata.version(name)) != version:
                others.append(f"{name} {found} (pinned: {version})")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield "FAIL", f"missing: {', '.join(missing)}; `make setup`"
    if others:
        yield "warn", f"other versions than those that were tested: {', '.join(others)}"
    if pinned and not missing and not others:
        yield "ok", f"{len(pinned)} as in {lock.name}"
    try:
        torch = metadata.version("torch").split("+")[0]
        wanted = [r for r in metadata.requires("torchvision") or () if r.replace(" ", "").startswith("torch==")]
        if wanted and not wanted[0].replace(" ", "").split("==")[1].startswith(torch):
            yield "FAIL", f"torchvision needs {wanted[0]}, torch is {torch}: it will not load; `make setup`"
    except metadata.PackageNotFoundError:
        pass  # named above


def _machine() -> Iterator[tuple[Mark, str]]:
    free = psutil.virtual_memory().available / _GIB
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    text = f"{cores} cores, load {load:.1f}, {free:.1f} GiB of memory free"
    if free < 2:
        yield "warn", f"{text}: a framework takes 1 to 2 GiB"
    elif load > cores:
        yield "warn", f"{text}: busy; speeds measured now say little"
    else:
        yield "ok", text


def _gpu() -> Iterator[tuple[Mark, str]]:
    gpus = machine().gpus
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus and hidden in ("", "-1"):
        yield "warn", f"{len(gpus)} there, but CUDA_VISIBLE_DEVICES = {hidden!r} hides them"
    elif gpus:
        yield (
            "ok",
            ", ".join(f"{gpu.name}, {gpu.memory_bytes / _GIB:.0f} GiB, driver {gpu.driver}" for gpu in gpus),
        )
    elif Path("/proc/driver/nvidia").exists() or Path("/dev/nvidia0").exists():
        yield "FAIL", "there is an NVIDIA device, but its driver does not answer: `nvidia-smi` says more"
    else:
        yield "ok", "none: all frameworks compute on the CPU"


def _disk(root: Path) -> Iterator[tuple[Mark, str]]:
    places = {root: "the repository", Path(os.environ.get("TMPDIR", "/tmp")): "temporary files"}
    for place, what in places.items():
        free = shutil.disk_usage(place).free
        text = f"{free / _GIB:,.1f} GiB free for {what} ({place})"
        if not os.access(place, os.W_OK):
            yield "FAIL", f"{place}: cannot be written"
        elif free < _NO_DISK:
            yield "FAIL", f"{text}: a run needs some 100 MiB"
        else:
            yield "warn" if free < _LITTLE_DISK else "ok", text
    for name in ("results", "data", "outputs", "multirun", CHECKPOINTS.name, journal.FOLDER, "mlartifacts"):
        if (root / name).exists() and not os.access(root / name, os.W_OK):
            yield "FAIL", f"{root / name}: cannot be written; what runs leave goes there"


def _journal(root: Path) -> Iterator[tuple[Mark, str]]:
    found = outbox.find(root)
    refused = [one for one in found if one.refused]
    waiting = [one for one in found if not one.refused]
    if waiting:
        size = sum(one.bytes for one in waiting) / 2**20
        stores = ", ".join(sorted({store_uri(root, one.store) for one in waiting}))
        yield "warn", f"{len(waiting)} journals ({size:,.1f} MiB) wait for {stores}: `python -m pipeline.sync`"
    for one in refused:
        yield "warn", f"MLflow refused some of {one.name}: see {one.folder / 'refused.jsonl'}, then delete that folder"
    if not found:
        yield "ok", "nothing waits for MLflow"


def _checkpoints(root: Path) -> Iterator[tuple[Mark, str]]:
    folders = list((root / CHECKPOINTS).glob("*/state.safetensors"))
    size = sum(path.stat().st_size for path in folders) / 2**20
    for path in (root / CHECKPOINTS).glob("*/holder.json"):
        holder = json.loads(path.read_text())
        here = holder["host"] == socket.gethostname()
        if here and psutil.pid_exists(holder["pid"]):
            yield "ok", f"process {holder['pid']} trains {path.parent.name}"
        elif here:
            yield "ok", f"{path.parent.name}: its process was killed; the same command goes on with it"
    yield "ok", f"{len(folders)} trainings cut short, {size:,.0f} MiB (at most 4 GiB, two weeks)" if folders else "none"


def _configuration(arguments: Sequence[str], root: Path) -> Iterator[tuple[Mark, str]]:
    compose(arguments)
    snapshot = root / PARAMS
    if not snapshot.exists():
        yield "ok", f"{CONF}: valid; {PARAMS} will be composed"
        return
    found = re.search(r"(?m)^conf_digest: (\w+)", snapshot.read_text())
    same = bool(found) and found.group(1) == conf_digest()  # type: ignore[union-attr]
    state = "composed from it" if same else "older: the next `dvc repro` composes it anew"
    yield "ok", f"{CONF}: valid; {PARAMS} is {state}"


def _data(config: Config, root: Path) -> Iterator[tuple[Mark, str]]:
    data, prepared = config.data, root / PREPARED / "dataset.json"
    there = ""
    if prepared.exists():
        facts = json.loads(prepared.read_text())
        there = f"; prepared: {facts['name']}, {facts['fingerprint'][:8]}"
    mirror = getattr(data, "mirror", None)
    if mirror and mirror.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(mirror, timeout=ANSWER_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # it answers: it need not list itself
        except (OSError, ValueError) as error:
            yield "FAIL", f"data.mirror = {mirror}: {getattr(error, 'reason', error)}"
            return
        yield "ok", f"data.mirror = {mirror}: answers{there}"
    elif mirror:
        folder = Path(mirror.removeprefix("file://"))
        folder = folder if folder.is_absolute() else root / folder
        if folder.is_dir():
            yield "ok", f"data.mirror = {mirror}: {sum(1 for _ in folder.iterdir())} files{there}"
        else:
            yield "FAIL", f"data.mirror = {mirror}: no such folder"
    elif host := _HOSTS.get(data.provider):
        if (root / "data/raw").exists() and any((root / "data/raw").iterdir()):
            yield "ok", f"{data.name}: files are in data/raw{there}"
            return
        try:
            socket.create_connection((host, 443), timeout=ANSWER_SECONDS).close()
            yield "ok", f"{data.name}: {host} answers{there}"
        except OSError as error:
            out = "set data.mirror to a folder with the upstream files, or choose data=mnist_sample, which is bundled"
            yield "FAIL", f"{data.name} by {data.provider}: {host}: {error}; {out}"
    else:
        yield "ok", f"{data.name}: needs no network{there}"


def _dvc(root: Path) -> Iterator[tuple[Mark, str]]:
    if not (root / ".dvc").is_dir():
        yield "FAIL", f"{root}: has no .dvc folder: `dvc repro` does not run here; clone the repository"
        return
    locks = root / ".dvc/tmp/rwlock"
    held = json.loads(locks.read_text() or "{}") if locks.exists() else {}
    pids = {int(pid) for pid in re.findall(r'"pid": (\d+)', json.dumps(held))}
    dead = [pid for pid in pids if not psutil.pid_exists(pid)]
    if pids - set(dead):
        yield "warn", f"`dvc` is at work: process {', '.join(map(str, pids - set(dead)))}"
    elif dead:
        yield "ok", f"a lock of process {dead[0]}, which has ended: the next `dvc` removes it"
    else:
        yield "ok", f"dvc {metadata.version('dvc')}, no locks" + ("" if (root / "dvc.lock").exists() else "; never run")


def _git() -> Iterator[tuple[Mark, str]]:
    if not shutil.which("git"):
        yield "FAIL", "git is not there: DVC needs it"
        return
    state = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5)
    if state.returncode:
        yield (
            "warn",
            "not a git repository: runs have no commit; `dvc repro` needs `dvc config --local core.no_scm true`",
        )
    else:
        changed = len(state.stdout.splitlines())
        head = subprocess.run(["git", "log", "-1", "--format=%h %s"], capture_output=True, text=True, timeout=5)
        kept = f"; changed or new files: {changed}, kept with every run as git.diff" if changed else ""
        yield "ok", f"{head.stdout.strip() or 'no commit yet'}{kept}"


def _leftovers(root: Path) -> Iterator[tuple[Mark, str]]:
    found = [*root.glob("mlflow.db.building-*"), *root.glob("data/*.building"), *root.glob("data/scratch-*")]
    if found:
        yield (
            "ok",
            f"of a process that was killed, can be deleted: {', '.join(str(p.relative_to(root)) for p in found)}",
        )
    else:
        yield "ok", "none"
