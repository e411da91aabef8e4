"""The configuration: typed schema, composition of `conf/`, and its snapshot `params.yaml`."""

from .compose import CONF, PARAMS, compose, load, parse, write
from .schema import (
    CompareConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ParityConfig,
    TraceConfig,
    TrackingConfig,
    TrainConfig,
)

__all__ = [
    "CONF",
    "PARAMS",
    "CompareConfig",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "ModelConfig",
    "ParityConfig",
    "TraceConfig",
    "TrackingConfig",
    "TrainConfig",
    "compose",
    "load",
    "parse",
    "write",
]
