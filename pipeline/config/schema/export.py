"""The section `export`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Positive, Section

Format = Literal["onnx", "native", "onnx_int8", "litert"]


class ExportConfig(Section):
    """The formats that a trained network is exported to, and how each is proven to compute the same."""

    formats: Annotated[list[Format], Field(min_length=1)]
    """`native`: SavedModel of TensorFlow, `.pt2` of PyTorch. `onnx_int8` is `onnx` with 8-bit weights and values."""
    examples: Positive
    """Test images, from the first on, whose logits each export must give again."""
    tolerance: Annotated[float, Field(gt=0, lt=1)]
    """Largest difference of a logit, relative to the largest logit of all, but at least to 1. Not for `onnx_int8`.

    That one is judged by the test of equivalence on the whole test split.
    """
    margin: Annotated[float, Field(gt=0, lt=1)]
    """The smallest difference in accuracy that matters: a fraction of the examples, for `onnx_int8`."""
    calibration_images: Positive
    """Training images that give the ranges of the values of `onnx_int8`."""

    @model_validator(mode="after")
    def _formats_differ(self) -> "ExportConfig":
        if len(set(self.formats)) != len(self.formats):
            raise ValueError(f"export.formats = {self.formats}: every format must occur once")
        return self
