"""ONNX with 8-bit weights and values, from the float file.

Static quantisation of ONNX Runtime: QDQ nodes, ranges from training images (the least and the largest value), weights
per channel. Of the variants tried (per tensor, percentile, entropy, dynamic) it is among the most accurate and the
fastest to make.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

_BATCH: Final = 64


def quantise(source: Path, target: Path, images: np.ndarray) -> None:
    """Write the int8 version of the ONNX file `source` to `target`; `images`: uint8, that give the ranges."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().setLevel(logging.ERROR)  # it advises pre-processing, which is done here
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


class _Reader:
    """Batches of images, as the calibration asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = (images[i : i + _BATCH] for i in range(0, len(images), _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch by the input's name; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
