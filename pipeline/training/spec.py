"""What training is asked for: one framework under one configuration, seed by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ..config.schema.model import ModelConfig
from ..config.schema.tracking import TrackingConfig
from ..config.schema.train import TrainConfig
from ..config.schema.whole import Config
from ..core import fingerprint
from ..data.dataset import Dataset
from ..models.architecture import Architecture

INDIFFERENT: Final = ("memory_mebibytes", "checkpoint_minutes")
"""Keys of the section `train` that leave the bits as they are."""


@dataclass(frozen=True)
class SweepMembership:
    """Which job of which sweep a training is: `job.json`."""

    id: str
    """The name of the sweep's folder."""
    parent: str
    """The sweep's run in MLflow."""
    job: int
    label: str
    """The values that differ from the other jobs'."""
    key: str
    """See `sweeps.cache.key_of`."""


@dataclass(frozen=True)
class RunSpec:
    """One framework under one configuration: what a sweep has many of."""

    framework: str
    model: ModelConfig
    train: TrainConfig
    seeds: Sequence[int]
    tracking: TrackingConfig
    dataset: Dataset
    output: Path
    sweep: SweepMembership | None = None

    @classmethod
    def of(cls, config: Config, *, dataset: Dataset, output: Path, sweep: SweepMembership | None = None) -> "RunSpec":
        """Take from the configuration the sections that training reads."""
        return cls(
            framework=config.framework,
            model=config.model,
            train=config.train,
            seeds=config.seeds,
            tracking=config.tracking,
            dataset=dataset,
            output=output,
            sweep=sweep,
        )

    @cached_property
    def architecture(self) -> Architecture:
        """The declared network, on this data. Raises `UserError` where it does not fit."""
        return Architecture.of(self.model, self.dataset)

    def resolved(self) -> dict[str, Any]:
        """Return everything that defines the result, but for the seed and the machine."""
        return {
            "framework": self.framework,
            "data": self.dataset.identity,
            "model": self.model.model_dump(),
            "train": self.train.model_dump(),
        }

    def defining(self) -> dict[str, Any]:
        """Return `resolved`, but for what leaves the bits as they are."""
        return self.resolved() | {"train": self.train.model_dump(exclude=set(INDIFFERENT))}

    def key(self, seed: int | None = None) -> str:
        """Return 12 hexadecimal digits that name `defining`, and the seed."""
        return fingerprint.of_json({**self.defining(), "seed": seed}, 12)

    @property
    def pair(self) -> str:
        """12 hexadecimal digits that every framework under these settings shares."""
        return fingerprint.of_json({k: v for k, v in self.defining().items() if k != "framework"}, 12)

    @property
    def label(self) -> str:
        """The beginning of its runs' names, short: the UI cuts names at about 18 characters."""
        return " ".join(filter(None, (self.framework, self.sweep.label if self.sweep else "")))
