"""The section `tracking`."""

from typing import Annotated

from pydantic import Field

from .section import Section


class TrackingConfig(Section):
    """What goes to MLflow beside metrics and parameters, and under which experiment."""

    experiment: Annotated[str, Field(min_length=1, max_length=200)]
    system_metrics_seconds: Annotated[float, Field(ge=0.1)] | None
    log_model: bool
