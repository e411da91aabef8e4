"""The section `evaluate`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class EvaluateConfig(Section):
    """How predictions are evaluated."""

    calibration_bins: Annotated[int, Field(ge=1)]
    """Number of confidence bins of the calibration error."""
    plots: bool
    """Whether to draw the figures below `plots/`: that takes longer than an epoch of a small network."""
