"""The section `tracking`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class TrackingConfig(Section):
    """The MLflow experiment, and what is logged beside metrics and parameters."""

    experiment: Annotated[str, Field(min_length=1, max_length=200)]
    system_metrics_seconds: Annotated[float, Field(ge=0.1)] | None
    """Sampling interval of CPU, memory, disk, network and GPU use; None: no sampling."""
    log_model: bool
    """Whether to store each trained network as an MLflow model."""
