"""NVIDIA GPUs as NVML reports them: which there are, which a process may use, and which of them it uses.

A process uses one: the first that `CUDA_VISIBLE_DEVICES` names, or the first of the machine.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

# CUDA would put the fastest first, NVML counts along the bus: with this, a number means the same to both.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, or a part of one that is a device of its own (MIG)."""

    name: str
    memory_bytes: int
    driver: str
    uuid: str = ""
    """`GPU-...` or `MIG-...`."""


@lru_cache
def installed() -> tuple[Gpu, ...]:
    """Return the GPUs of this machine, in the order of the bus; cached for the life of the process."""
    with _nvml() as nvml:
        return tuple(_described(nvml, handle) for handle in _handles(nvml)) if nvml else ()


def visible() -> list[str]:
    """Return the GPUs that this process may use, as values for `CUDA_VISIBLE_DEVICES`, the one that it uses first.

    CUDA takes numbers, UUIDs and their beginnings, and ignores what follows a name that is no device's
    (CUDA C++ Programming Guide, "CUDA Environment Variables").
    """
    gpus, chosen = installed(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not gpus:
        return [str(position) for position in range(len(gpus))]
    names: list[str] = []
    for name in map(str.strip, chosen.split(",")):
        if not _exists(name, gpus):
            break
        names.append(name)
    return names


def used() -> Gpu | None:
    """Return the GPU that a process here uses; None: there is none, or all are hidden."""
    return _of_used(_described)


def use_one(position: int) -> None:
    """Have this process, one of several on this machine, use a GPU of its own: that of its position, counted round.

    To be called before a framework is imported.
    """
    if names := visible():
        os.environ["CUDA_VISIBLE_DEVICES"] = names[position % len(names)]


def usage() -> dict[str, float]:
    """Return the use of the GPU that this process uses, as MLflow names it for a GPU; empty: there is none."""
    return _of_used(_usage) or {}


def free_bytes() -> int | None:
    """Return the free memory of the GPU that a process here uses; None: there is none."""
    return _of_used(lambda nvml, handle: int(nvml.nvmlDeviceGetMemoryInfo(handle).free))


def _of_used(ask: Callable[[Any, Any], _T]) -> _T | None:
    """Return what `ask` says of NVML and the handle of the GPU that is used; None: there is none."""
    names = visible()
    if not names:
        return None
    with _nvml() as nvml:
        handle = _handle(nvml, names[0]) if nvml else None
        return None if handle is None else ask(nvml, handle)


def _usage(nvml: Any, handle: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    found = {
        "gpu_0_memory_usage_percentage": memory.used / memory.total * 100,
        "gpu_0_memory_usage_megabytes": memory.used / 1e6,
    }
    with suppress(nvml.NVMLError):  # a part of a GPU does not tell
        found["gpu_0_utilization_percentage"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    with suppress(nvml.NVMLError):
        found["gpu_0_power_usage_watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    return found


def _exists(name: str, gpus: tuple[Gpu, ...]) -> bool:
    if name.isdecimal():
        return int(name) < len(gpus)
    return name.startswith("MIG-") or (name.startswith("GPU-") and any(gpu.uuid.startswith(name) for gpu in gpus))


@contextmanager
def _nvml() -> Iterator[Any]:
    """Yield NVML, or None where there is no driver that answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _handles(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(position) for position in range(nvml.nvmlDeviceGetCount())]


def _described(nvml: Any, handle: Any) -> Gpu:
    return Gpu(
        name=nvml.nvmlDeviceGetName(handle),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        driver=nvml.nvmlSystemGetDriverVersion(),
        uuid=nvml.nvmlDeviceGetUUID(handle),
    )


def _handle(nvml: Any, name: str) -> Any:
    """Return the handle of a device that `CUDA_VISIBLE_DEVICES` names; None if NVML does not know it.

    A GPU that is divided (MIG) is no device to CUDA: its first part is.
    """
    try:
        if name.startswith("MIG-"):
            return nvml.nvmlDeviceGetHandleByUUID(name)
        handles = _handles(nvml)
        by_uuid = (handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(name))
        handle = handles[int(name)] if name.isdecimal() else next(by_uuid, None)
    except nvml.NVMLError:
        return None
    try:
        if nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE:
            return nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)
    except nvml.NVMLError:  # a GPU that cannot be divided, or has no part
        pass
    return handle
