"""The whole configuration, as `params.yaml` holds it."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from ...core import frameworks
from .compare import CompareConfig
from .data import DataConfig
from .evaluate import EvaluateConfig
from .export import ExportConfig
from .model import ModelConfig
from .parity import ParityConfig
from .search import SearchConfig
from .section import Section, Seed
from .sweep import SweepConfig
from .trace import TraceConfig
from .tracking import TrackingConfig
from .train import TrainConfig


def _registered(framework: str) -> str:
    if framework not in frameworks.FRAMEWORKS:
        raise ValueError(f"framework = {framework!r}: allowed: {', '.join(frameworks.names())}")
    return framework


class Config(Section):
    """The whole experiment, as `params.yaml` holds it."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    trace: TraceConfig
    parity: ParityConfig
    evaluate: EvaluateConfig
    compare: CompareConfig
    export: ExportConfig
    tracking: TrackingConfig
    search: SearchConfig
    sweep: SweepConfig
    framework: Annotated[str, AfterValidator(_registered)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    conf_digest: str
    """Digest of the `conf/` that it was composed from, see `compose.conf_digest`."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Config":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: every seed must occur once")
        return self
