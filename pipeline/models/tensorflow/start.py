"""The import of TensorFlow and Keras without their notices, and their settings for the process."""

import importlib.abc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ...config.schema.train import TrainConfig
from ...core.machine import usable_cores
from ...core.quiet import without_notices
from ..backend import Device
from ..device import choose
from .libraries import missing_libraries

# Without an NVIDIA driver TensorFlow logs an error at every start (3 hides it); with one, its errors matter (2).
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/proc/driver/nvidia").exists() else "3")

_UNUSED: Final = ("matplotlib", "pandas", "scipy", "sklearn")
"""What Keras imports where it is installed, for galleries, data frames and wrappers that are not used here.

That is 40 % of the time to import TensorFlow and Keras. Keras does without each of them.
"""


class _Absent(importlib.abc.MetaPathFinder):
    """Tells the imports of one thread that `names` are not installed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names, self._thread = names, threading.get_ident()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raise `ModuleNotFoundError` for one of the names; leave all others to the next finder."""
        if fullname in self._names and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"no module named {fullname!r} is wanted here", name=fullname)


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Let the body import nothing of `names`, except what is imported already."""
    finder = _Absent(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


# Keras would read its backend, layout, precision and epsilon from the user's home and environment, and write there. In
# os.devnull it finds nothing, and can write nothing; that is no error of Keras'.
_others = {name: os.environ.pop(name) for name in tuple(os.environ) if name.startswith("KERAS_")}
os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}
try:
    with without_notices(), _without(_UNUSED):
        import keras
        import tensorflow as tf
        from tensorflow.python.eager import context
    # a trace has several networks, each with its functions
    tf.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())
finally:
    del os.environ["KERAS_HOME"]
    os.environ |= _others | {"KERAS_BACKEND": "tensorflow"}

__all__ = ["configure", "context", "gpu", "keras", "peak_gpu_bytes", "tf"]


def configure(train: TrainConfig) -> Device:
    """Set threads, determinism, precision and the device for the process, and return the device.

    TensorFlow fixes these settings at its first operation. Raises `UserError`, see `device.choose`.
    """
    chosen, threads = choose(train.device, "tensorflow"), train.threads or usable_cores()
    cards = tf.config.list_physical_devices("GPU")[:1] if chosen.type == "gpu" else []
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        for card in cards:
            tf.config.experimental.set_memory_growth(card, True)
    tf.config.set_visible_devices(cards, "GPU")
    # Grappler would fuse a convolution or a product with the ReLU after it into an operator that makes NaN zero, so a
    # network that has diverged would predict. Training is as fast without, prediction in batches 5 % slower.
    tf.config.optimizer.set_experimental_options({"remapping": False})
    tf.config.experimental.enable_tensor_float_32_execution(train.tf32)
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()  # without autotuning, on a GPU
    if cards:
        return Device("gpu", _name(cards[0]), threads)
    return Device("cpu", "cpu", threads)


def gpu() -> tuple[str, str]:
    """Return the name of the GPU that TensorFlow would use, or an empty one and why it would use none."""
    if missing := missing_libraries():
        return "", f"missing: {', '.join(missing)}"
    cards = tf.config.list_physical_devices("GPU")
    if not cards:
        return "", "it finds none"
    with tf.device("GPU:0"):
        tf.nn.conv2d(tf.ones((1, 8, 8, 1)), tf.ones((3, 3, 1, 4)), 1, "SAME").numpy()
    return _name(cards[0]), ""


def _name(card: Any) -> str:
    return str(tf.config.experimental.get_device_details(card).get("device_name", "GPU"))


def peak_gpu_bytes() -> int:
    """Return the largest memory of the GPU that tensors have taken in this process."""
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
