"""The section `parity`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class ParityConfig(Section):
    """How far the two frameworks may be apart: the 2-norm of each array's difference, relative to its layer's norm."""

    gradients: Annotated[float, Field(gt=0)]
    """Of outputs and gradients on one batch, in float64."""
    trajectory_float64: Annotated[float, Field(gt=0)]
    """Of the loss of every step, and of the weights that training arrives at."""
    trajectory_float32: Annotated[float, Field(gt=0)]
