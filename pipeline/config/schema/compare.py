"""The section `compare`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class MarginConfig(Section):
    """The smallest difference that matters, in the unit of each metric."""

    accuracy: Annotated[float, Field(gt=0, lt=1)]
    """Fraction of the examples."""
    loss: Annotated[float, Field(gt=0)]
    """Nats of cross-entropy."""
    calibration_error: Annotated[float, Field(gt=0, lt=1)]


class SpeedConfig(Section):
    """Duration of the speed measurement, in which the frameworks take turns."""

    restarts: Annotated[int, Field(ge=2, le=1000)]
    """How often the processes are started anew. Each restart gives one ratio; the interval is over the restarts."""
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    """Rounds of each restart. Each round measures every framework once."""
    block_seconds: Annotated[float, Field(ge=0.01, le=60)]
    """Seconds of training in each round, for each framework; inference takes less."""


class CompareConfig(Section):
    """How two arms are compared."""

    margin: MarginConfig
    resamples: Annotated[int, Field(ge=200, le=100_000)]
    """Number of bootstrap resamples of the examples."""
    speed: SpeedConfig
