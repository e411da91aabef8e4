"""The machine, the versions and the commit that a run happened on."""

import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml

PACKAGES = ("tensorflow", "keras", "torch", "torchvision", "numpy", "mlflow", "dvc", "hydra-core")


@lru_cache
def machine() -> dict[str, Any]:
    """Processor, cores, memory (bytes), operating system, Python, and every NVIDIA GPU."""
    return {
        "cpu": _cpu_model(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "hostname": platform.node(),
        "python": platform.python_version(),
        "gpus": _gpus(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


@lru_cache
def git() -> dict[str, Any]:
    """Commit, branch, whether the working tree differs from it, and how (a diff, at most 1 MB). Empty outside git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    # params.yaml is the composed configuration, which is logged as such, and the pipeline itself rewrites dvc.lock
    changed = ("--", ".", ":(exclude)dvc.lock", ":(exclude)params.yaml")
    status = _git("status", "--porcelain", *changed)
    return {
        "commit": commit,
        "branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(status),
        "diff": _git("diff", "HEAD", *changed)[:1_000_000] if status else "",
    }


def dvc() -> dict[str, str]:
    """The DVC stage and experiment that this process runs for; empty values outside of one."""
    return {"stage": os.environ.get("DVC_STAGE", ""), "exp": os.environ.get("DVC_EXP_NAME", "")}


def origin() -> dict[str, Any]:
    """Of what commit and for what stage and experiment of DVC this process runs: tags of its runs; None: unknown."""
    return {
        "git.commit": git().get("commit"),
        "git.dirty": git().get("dirty"),
        "dvc.stage": dvc()["stage"] or None,
        "dvc.exp": dvc()["exp"] or None,
    }


def data_source(path: str, name: str) -> dict[str, str]:
    """Where the data `name` come from: a path, and the MD5 under which DVC keeps it, empty where it does not."""
    return {"dvc.path": path, "dvc.md5": data_md5(path) or "", "name": name}


def data_md5(path: str) -> str | None:
    """The MD5 under which DVC keeps the output `path` of this pipeline; None where `dvc.lock` has none."""
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text())
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", ())]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
    return next((out["md5"] for out in outs if out["path"] == path), None)


def memory_limit(mebibytes: float | None, device: str) -> int:
    """Bytes that training images may take: what was asked for, or half of what the device (`cpu` or `gpu`) has free."""
    if mebibytes is not None:
        return int(mebibytes * 2**20)
    free = _free_gpu_bytes() if device == "gpu" else None
    return (free if free is not None else _free_bytes()) // 2


def _free_bytes() -> int:
    """Of the host, or of the container that this process is in."""
    free = psutil.virtual_memory().available
    try:
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no such group, or no limit
        return int(free)
    return int(min(free, max(0, most - used)))


def _free_gpu_bytes() -> int | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free)
    except pynvml.NVMLError:
        return None


def peak_memory_bytes() -> int:
    """The largest resident set that this process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[dict[str, Any]]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    driver = pynvml.nvmlSystemGetDriverVersion()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    gpus = [
        {
            "name": pynvml.nvmlDeviceGetName(handle),
            "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
            "driver": driver,
        }
        for handle in handles
    ]
    pynvml.nvmlShutdown()
    return gpus


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
