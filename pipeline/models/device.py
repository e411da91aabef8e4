"""Which device a classifier computes on: a GPU where every framework can use it, else the CPU.

Whether a framework can is asked of the framework, in a process of its own (`python -m pipeline.models.device NAME`),
once for each machine, driver and version: a comparison of two devices would say nothing about two frameworks.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from filelock import FileLock

from ..config.schema.train import TrainConfig
from ..core import fingerprint, gpus
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.frameworks import FRAMEWORKS, find, require_execution
from ..core.machine import machine
from ..core.paths import main_root

_SECONDS: Final = 300.0
"""How long a framework may take to answer: the first start on a new kind of GPU compiles its kernels."""
_CACHE: Final = Path("data/cache/devices.json")


@dataclass(frozen=True)
class Ability:
    """What a framework said of the GPU."""

    name: str
    """The GPU that it would use; empty: none."""
    reason: str
    """Why it uses none, such as a library that is missing; else empty."""


@dataclass(frozen=True)
class Choice:
    """The device to compute on."""

    type: str
    """`cpu` or `gpu`."""
    reason: str
    """Why it is the CPU although there is a GPU; else empty."""


def choose(asked: str, framework: str) -> Choice:
    """Return the device for `train.device = asked`; `framework`: the one that computes here.

    `auto` takes the GPU if all frameworks that are installed can use it. Raises `UserError` if `gpu` is asked for and
    this framework can use none.
    """
    if asked == "cpu":
        return Choice("cpu", "")
    key = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not gpus.visible():
        if asked == "gpu":
            hidden = f", as CUDA_VISIBLE_DEVICES = {key!r} hides it" if gpus.installed() else ""
            raise UserError(f"train.device = gpu: there is no NVIDIA GPU to use{hidden}; allowed here: cpu, auto")
        return Choice("cpu", "")
    return among(abilities(key), asked, framework)


def require_device(train: TrainConfig, framework: str) -> Choice:
    """Return what `choose` does. Raises `UserError` also for a `train.execution` that the framework lacks there."""
    chosen = choose(train.device, framework)
    require_execution(framework, train.execution, chosen.type)
    return chosen


def among(found: Mapping[str, Ability], asked: str, framework: str) -> Choice:
    """Return what `choose` does where there is a GPU and the frameworks said `found` of it. Raises `UserError`."""
    if asked == "cpu":
        return Choice("cpu", "")
    if asked == "gpu":
        if found[framework].name:
            return Choice("gpu", "")
        raise UserError(f"train.device = gpu: {_cannot(framework, found[framework])}; allowed here: cpu, auto")
    unable = [_cannot(name, ability) for name, ability in found.items() if not ability.name]
    if unable:
        return Choice("cpu", f"{'; '.join(unable)}: all compute on the CPU (train.device = auto)")
    return Choice("gpu", "")


@lru_cache
def abilities(visible: str | None) -> Mapping[str, Ability]:
    """Return what each installed framework says of the GPU, by name; `visible`: `CUDA_VISIBLE_DEVICES`.

    Kept in `data/cache/devices.json` for the same kind of GPU, driver, versions and library path.
    """
    used = gpus.used()
    facts = {
        "gpu": (used.name, used.memory_bytes, used.driver) if used else visible,
        "libraries": os.environ.get("LD_LIBRARY_PATH"),
        "versions": machine().versions,
        "python": sys.executable,
    }
    key, path = fingerprint.of_json(facts, 32), main_root() / _CACHE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # jobs of a sweep, and ranks, ask at the same time
        try:
            kept = dict(read_json(path, ""))
            return {name: Ability(**said) for name, said in kept[key].items()}
        except KeyError:
            pass
        except (UserError, TypeError, ValueError, AttributeError):  # there is none, or it is not of this form
            kept = {}
        found = ask_all()
        write_json(path, kept | {key: {name: asdict(ability) for name, ability in found.items()}})
        return found


def ask_all() -> dict[str, Ability]:
    """Ask each framework that is installed, one after the other."""
    versions = machine().versions
    return {name: ask(name) for name, entry in FRAMEWORKS.items() if entry.packages[0] in versions}


def ask(framework: str) -> Ability:
    """Ask a framework, in a process of its own, for the GPU that it would use."""
    command = [sys.executable, "-m", __name__, framework]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_SECONDS, check=False
        )
        return Ability(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Ability("", f"gave no answer within {_SECONDS:.0f} s")
    except (ValueError, IndexError, TypeError):
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return Ability("", said[-1] if said else f"ended with code {done.returncode}")


def _cannot(framework: str, ability: Ability) -> str:
    return f"{find(framework).style.title} cannot use the GPU ({ability.reason})"


def _main(framework: str) -> None:
    """Print what `framework` says of the GPU as one line of JSON, after all else that its libraries may print."""
    module, _, name = find(framework).backend.partition(":")
    backend = getattr(importlib.import_module(module), name)
    try:
        ability = Ability(*backend.gpu())
    except Exception as error:  # of the framework's own, which has many kinds
        ability = Ability("", f"{type(error).__name__}: {error}".splitlines()[0][:300])
    print(json.dumps(asdict(ability)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
