"""The machine of a run: processor, memory, GPUs, versions of the packages that compute, variables that steer them."""

import os
import platform
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from . import gpus
from .frameworks import FRAMEWORKS

_PACKAGES: Final = ("torchvision", "numpy", "mlflow", "dvc", "hydra-core")  # in addition to those of the frameworks
_STEERING: Final = (
    *("ONEDNN_*", "DNNL_*", "MKL_*", "OPENBLAS_*", "BLIS_*", "NPY_*", "GLIBC_TUNABLES"),
    *("CUBLAS_*", "CUDNN_*", "NVIDIA_TF32_OVERRIDE"),
)
"""Patterns of the variables of libraries that all frameworks may use, in addition to `Framework.variables`."""
_HARMLESS: Final = (
    *("*_NUM_*THREADS*", "MKL_DYNAMIC", "MKL_THREADING_LAYER"),  # `train.threads` decides
    *("*_HOME", "*_DIR", "*_PATH", "*_CACHE*", "*LOG*", "*_VERBOSE*", "*_DEBUG*"),
    "TF_CLI_*",  # of Terraform
    *("TORCHELASTIC_*", "TORCH_NCCL_ASYNC_*", "TF_CONFIG"),  # of launchers: other ones at each start
)
_ENVIRONMENT: Final = dict(os.environ)
"""The environment of the command: frameworks set variables during their import."""


@dataclass(frozen=True)
class Machine:
    """Hardware, operating system and package versions of this process."""

    cpu: str
    cores_physical: int | None
    cores_logical: int | None
    memory_bytes: int
    os: str
    hostname: str
    python: str
    gpus: tuple[gpus.Gpu, ...]
    versions: dict[str, str]
    """Versions of the installed packages, by name; a missing package has no entry."""


@lru_cache
def machine() -> Machine:
    """Describe this machine; cached for the life of the process."""
    packages = [*(package for framework in FRAMEWORKS.values() for package in framework.packages), *_PACKAGES]
    return Machine(
        cpu=_cpu_model(),
        cores_physical=psutil.cpu_count(logical=False),
        cores_logical=psutil.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
        os=platform.platform(),
        hostname=platform.node(),
        python=platform.python_version(),
        gpus=gpus.installed(),
        versions={name: version for name in packages if (version := _version(name))},
    )


@lru_cache
def packages() -> tuple[str, ...]:
    """Return `name==version` of every installed package, sorted, from the names of the folders that pip leaves.

    Packages that others bring along are not among them: setuptools puts its own on the path once it is imported.
    """
    given = _ENVIRONMENT.get("PYTHONPATH", "").split(os.pathsep)
    places = [place for place in sys.path if place in given or Path(place).name in ("site-packages", "dist-packages")]
    folders = (folder for place in places if place for folder in Path(place).glob("*.dist-info"))
    return tuple(sorted({"==".join(folder.stem.split("-", 1)) for folder in folders}))


@lru_cache
def cpu_features() -> tuple[str, ...]:
    """Return the instruction sets of the processor, sorted: libraries choose their kernels by them. Empty: unknown."""
    return tuple(sorted((_of_cpu("flags") or _of_cpu("Features")).split()))


def command_environment() -> dict[str, str]:
    """Return the environment that the command was started with."""
    return _ENVIRONMENT


def steering_variables(framework: str | None = None) -> dict[str, str]:
    """Return the variables of the environment that may move the bits of a framework; None: of any framework.

    They change the instructions, the order of summation or the precision that a library computes with.
    """
    chosen = FRAMEWORKS.values() if framework is None else [FRAMEWORKS[framework]]
    patterns = (*_STEERING, *(pattern for entry in chosen for pattern in entry.variables))
    return {
        name: value
        for name, value in sorted(command_environment().items())
        if any(fnmatchcase(name, pattern) for pattern in patterns)
        and not any(fnmatchcase(name, pattern) for pattern in _HARMLESS)
    }


def usable_cores() -> int:
    """Return how many cores this process may use: those of its affinity, and no more than its control group's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group (v2), or one without a quota (`max`)
        return cores


def memory_limit(mebibytes: float | None, device: str) -> int:
    """Return how many bytes of training images may be loaded onto `device` (`cpu` or `gpu`).

    The configured number of MiB if it is set. Else a third of the host's free memory, which holds the images twice
    while they are copied, and on a GPU no more than half of its own free memory.
    """
    if mebibytes is not None:
        return int(mebibytes * 2**20)
    fitting = free_bytes() // 3
    free = gpus.free_bytes() if device == "gpu" else None
    return fitting if free is None else min(fitting, free // 2)


def free_bytes() -> int:
    """Return the free memory of the host, or of this process's control group if that is less."""
    free = psutil.virtual_memory().available
    try:
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / f"memory.{name}").read_text(encoding="utf-8")) for name in ("max", "current"))
    except (OSError, ValueError):  # no control group (v2), or one without a limit (`max`)
        return int(free)
    return int(min(free, max(0, most - used)))


def peak_memory_bytes() -> int:
    """Return the peak resident set size of this process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def _cpu_model() -> str:
    return _of_cpu("model name") or platform.processor() or platform.machine()


def _of_cpu(key: str) -> str:
    """Return what Linux says of the first core; empty: nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
