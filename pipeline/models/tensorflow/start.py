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
finally:
    del os.environ["KERAS_HOME"]
    os.environ |= _others | {"KERAS_BACKEND": "tensorflow"}

__all__ = ["configure", "keras", "tf"]


def configure(train: TrainConfig) -> Device:
    """Set threads, determinism and memory growth for the process, and return the device.

    TensorFlow fixes these settings at its first operation.
    """
    threads = train.threads or usable_cores()
    gpus = tf.config.list_physical_devices("GPU")
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    if gpus:
        return Device("gpu", tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"), threads)
    return Device("cpu", "cpu", threads)
