"""The formats of export: file, what writes it from a classifier, and what reads it. Frameworks are imported late."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..config.schema.export import Format
from ..core.frameworks import find

Predict = Callable[[np.ndarray], np.ndarray]
"""From uint8 images (N, height, width, channels) to logits (N, classes)."""


@dataclass(frozen=True)
class FileFormat:
    """One kind of file."""

    title: str
    """For people."""
    file: str
    """Name of the file or folder."""
    reader: str
    """`<module>:<function>`: from the path and a number of threads to a `Predict`."""
    framework: str | None = None
    """The framework that writes and reads it; None: ONNX Runtime reads it, and nothing but NumPy writes it."""
    writer: str = ""
    """`<module>:<function>`: from a `Classifier` and a path."""
    exact: bool = True
    """Whether it must give the same logits within the tolerance; else its predictions are tested for equivalence."""


def open_onnx(path: Path, threads: int) -> Predict:
    """Return a function from uint8 images to logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"images": images})[0])


_HERE: Final = __name__
_TENSORFLOW: Final = "pipeline.exports.tensorflow_files"
_PYTORCH: Final = "pipeline.exports.pytorch_files"
ONNX: Final = FileFormat("ONNX", "model.onnx", f"{_HERE}:open_onnx")
INT8: Final = FileFormat("ONNX int8", "model_int8.onnx", f"{_HERE}:open_onnx", exact=False)
LITERT: Final = FileFormat(
    "LiteRT", "model.tflite", f"{_TENSORFLOW}:open_litert", "tensorflow", f"{_TENSORFLOW}:write_litert"
)
NATIVE: Final = {
    "tensorflow": FileFormat(
        "SavedModel",
        "saved_model",
        f"{_TENSORFLOW}:open_saved_model",
        "tensorflow",
        f"{_TENSORFLOW}:write_saved_model",
    ),
    "pytorch": FileFormat("pt2", "model.pt2", f"{_PYTORCH}:open_pt2", "pytorch", f"{_PYTORCH}:write_pt2"),
}
"""The format of each framework's own; a framework without one is exported as ONNX alone."""
_FORMATS: Final[dict[Format, FileFormat]] = {"onnx": ONNX, "onnx_int8": INT8, "litert": LITERT}


def format_of(name: Format, framework: str) -> FileFormat | None:
    """Return the format of this name for networks that a framework trained; None: there is none."""
    return NATIVE.get(find(framework).name) if name == "native" else _FORMATS[name]


def load(function: str) -> Callable[..., Predict]:
    """Import `<module>:<function>`."""
    module, _, name = function.partition(":")
    found: Callable[..., Predict] = getattr(importlib.import_module(module), name)
    return found
