"""The specification of a training: one framework under one configuration, with its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ..config.labels import short_label
from ..config.schema.model import ModelConfig
from ..config.schema.tracking import TrackingConfig
from ..config.schema.train import TrainConfig
from ..config.schema.whole import Config
from ..core import fingerprint, provenance
from ..data.dataset import Dataset
from ..models.architecture import Architecture

_USUAL: Final = {"data": "mnist_sample", "model": "simple_cnn", "learning_rate": 0.006}
"""What `conf/` composes to as shipped: names of runs hold what is not so."""
INDIFFERENT: Final = ("memory_mebibytes", "checkpoint_minutes")
"""Keys of the section `train` that do not change the bits of the result."""


@dataclass(frozen=True)
class SweepMembership:
    """The job of a sweep that a training belongs to: `job.json`."""

    id: str
    """Name of the sweep's folder."""
    parent: str
    """Reference of the sweep's MLflow run."""
    job: int
    """Number of the job: 0, 1, ...."""
    label: str
    """What tells the job from the others of its sweep, in short: `lr=0.001 adam`."""
    key: str
    """See `sweeps.cache.key_of`."""
    values: str = ""
    """The same in full, as overrides: `train.optimizer.learning_rate=0.001 train/optimizer=adam`."""


@dataclass(frozen=True)
class RunSpec:
    """One framework under one configuration, with the seeds to train and the folder to write to."""

    framework: str
    model: ModelConfig
    train: TrainConfig
    seeds: Sequence[int]
    tracking: TrackingConfig
    dataset: Dataset
    output: Path
    sweep: SweepMembership | None = None
    snapshot: str = ""
    """The whole configuration, for the record alone; empty: what training reads is recorded."""

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        dataset: Dataset,
        output: Path,
        sweep: SweepMembership | None = None,
        snapshot: str = "",
    ) -> "RunSpec":
        """Create a spec from the sections of the configuration that training reads."""
        return cls(
            framework=config.framework,
            model=config.model,
            train=config.train,
            seeds=config.seeds,
            tracking=config.tracking,
            dataset=dataset,
            output=output,
            sweep=sweep,
            snapshot=snapshot,
        )

    @cached_property
    def architecture(self) -> Architecture:
        """The declared network for this data set. Raises `UserError` if it does not fit."""
        return Architecture.of(self.model, self.dataset)

    def resolved(self) -> dict[str, Any]:
        """Return the settings that define the result, as logged: all but seeds and machine."""
        return {
            "framework": self.framework,
            "data": self.dataset.identity,
            "model": self.model.model_dump(),
            "train": self.train.model_dump(),
        }

    def defining(self) -> dict[str, Any]:
        """Return `resolved` without the keys that do not change the bits."""
        return self.resolved() | {"train": self.train.model_dump(exclude=set(INDIFFERENT))}

    def key(self, seed: int | None = None) -> str:
        """Return a digest of `defining` and the seed: 12 hexadecimal digits."""
        return fingerprint.of_json({**self.defining(), "seed": seed}, 12)

    @property
    def pair(self) -> str:
        """Digest of `defining` without the framework, equal for all arms of a comparison: 12 hexadecimal digits."""
        return fingerprint.of_json({k: v for k, v in self.defining().items() if k != "framework"}, 12)

    @property
    def alone(self) -> bool:
        """Whether it is a job of a sweep with one seed: its run stands for the whole training."""
        return self.sweep is not None and len(self.seeds) == 1

    @property
    def label(self) -> str:
        """Start of the names of its runs; short, as the MLflow UI cuts names at about 18 characters."""
        if self.sweep:
            return " ".join(filter(None, (self.framework, self.sweep.label)))
        if provenance.is_rerun():  # under a name of its own, or it would be taken for the run that it repeats
            return f"rerun of {self.framework}"
        experiment = provenance.dvc()["exp"]
        return " ".join(filter(None, (self.framework, experiment or short_label(self._unusual()))))

    def _unusual(self) -> dict[str, str]:
        """Return the settings that tell the rows of a leaderboard apart, as far as they are not the usual ones."""
        rate = self.train.optimizer.learning_rate
        settings = {"data": self.dataset.name, "model": self.model.name, "learning_rate": rate}
        return {key: f"{value}" for key, value in settings.items() if value != _USUAL[key]}
