"""How PyTorch is set up in a process: threads, determinism, precision, device, and the compilers it needs."""

import os
import shutil

import torch
from torch.nn import functional

from ...config.schema.train import TrainConfig
from ...core.errors import UserError
from ...core.machine import usable_cores
from ..backend import Device
from ..device import choose
from .allocator import keep_freed_memory


def gpu() -> tuple[str, str]:
    """Return the name of the GPU that PyTorch would use, or an empty one and why it would use none."""
    if not torch.cuda.is_available():
        return "", "it finds none" if torch.version.cuda else "this PyTorch was built without CUDA"
    functional.conv2d(torch.ones((1, 1, 8, 8), device="cuda"), torch.ones((4, 1, 3, 3), device="cuda")).cpu()
    return torch.cuda.get_device_name(0), ""


def configure(train: TrainConfig) -> Device:
    """Set threads, determinism, precision and the device for the process, and return the device.

    Raises `UserError`, see `device.choose`.
    """
    chosen, threads = choose(train.device, "pytorch"), train.threads or usable_cores()
    # Flush denormals, as TensorFlow does: else the running averages of dead units halve the speed of Adam after a few
    # epochs. Threads inherit the mode from the thread that starts them, so it is set before the first operation.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = train.tf32
    torch.backends.cudnn.benchmark = not train.deterministic
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS needs it
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # no operator here reads uninitialised memory
    if chosen.type == "gpu":
        return Device("gpu", torch.cuda.get_device_name(0), threads)
    return Device("cpu", "cpu", threads)


def require_compiler(place: torch.device) -> None:
    """Raise `UserError` if what `torch.compile` needs on this device is missing."""
    cxx, cc = os.environ.get("CXX"), os.environ.get("CC")
    if place.type == "cuda" and not any(shutil.which(name) for name in (cc, "gcc", "clang", "cc") if name):
        raise UserError(
            "train.execution = compiled: on a GPU, torch.compile's Triton needs a C compiler, and none of gcc, clang, "
            "cc is on PATH, nor does CC name one; allowed without one: eager, auto"
        )
    compilers = [name for name in (cxx, "g++", "clang++", "c++") if name]
    if place.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise UserError(
            "train.execution = compiled: torch.compile needs a C++ compiler on the CPU, and none of "
            f"{', '.join(compilers)} is on PATH; allowed without one: eager, auto"
        )
