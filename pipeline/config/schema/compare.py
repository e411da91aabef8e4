"""The section `compare`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class MarginConfig(Section):
    """The smallest difference that matters, in the unit of each metric."""

    accuracy: Annotated[float, Field(gt=0, lt=1)]
    loss: Annotated[float, Field(gt=0)]
    """Nats."""
    calibration_error: Annotated[float, Field(gt=0, lt=1)]


class SpeedConfig(Section):
    """How long the two frameworks take turns."""

    rounds: Annotated[int, Field(ge=3, le=10_000)]
    """Each round measures both: ratios are within a round, the interval is over the rounds."""
    block_seconds: Annotated[float, Field(ge=0.01, le=60)]
    """Of training, in each round and framework; inference takes less."""


class CompareConfig(Section):
    """How the two sides are compared."""

    margin: MarginConfig
    resamples: Annotated[int, Field(ge=200, le=100_000)]
    """Of the bootstrap over the examples."""
    speed: SpeedConfig
