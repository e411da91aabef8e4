"""The section `evaluate`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class EvaluateConfig(Section):
    """How predictions are judged."""

    calibration_bins: Annotated[int, Field(ge=1)]
    plots: bool
    """Whether the pictures below `plots/` are drawn, which takes longer than to train a small network for an epoch."""
