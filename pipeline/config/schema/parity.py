"""The section `parity`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class ParityConfig(Section):
    """Limits on the difference between two frameworks: 2-norm of an array's difference over its layer's 2-norm."""

    gradients: Annotated[float, Field(gt=0)]
    """For outputs and gradients on one batch, in float64."""
    trajectory_float64: Annotated[float, Field(gt=0)]
    """For the loss of every step and the final weights, in float64."""
    trajectory_float32: Annotated[float, Field(gt=0)]
    """As `trajectory_float64`, in float32."""
    ranks: Annotated[float, Field(gt=0)] = 1e-10
    """As `trajectory_float64`, between `train.world` processes and one; not looked at where that is 1."""
