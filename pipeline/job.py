"""What training is asked for, and what it leaves: one framework under one configuration, seed by seed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import ModelConfig, TrackingConfig, TrainConfig
from .data.dataset import Dataset
from .models.architecture import Architecture

_INDIFFERENT = ("memory_mebibytes", "checkpoint_minutes")  # of `train`: the bits are the same


@dataclass(frozen=True)
class Job:
    """One framework under one configuration: what a sweep has many of."""

    framework: str
    model: ModelConfig
    train: TrainConfig
    seeds: Sequence[int]
    tracking: TrackingConfig
    dataset: Dataset
    output: Path
    sweep: Mapping[str, Any] = field(default_factory=dict)
    """Of a job in a sweep: `id`, `parent` (MLflow run), `job` (number), `label` (what differs from the other jobs)."""

    @property
    def architecture(self) -> Architecture:
        """The declared network, on this data. Raises `UserError` where it does not fit."""
        return Architecture.of(self.model, self.dataset)

    def resolved(self) -> dict[str, Any]:
        """Everything that defines the result, but for the seed and the machine."""
        return {
            "framework": self.framework,
            "data": {**self.dataset.facts["source"], "fingerprint": self.dataset.fingerprint},
            "model": self.model.model_dump(),
            "train": self.train.model_dump(),
        }

    def key(self, seed: int | None = None) -> str:
        """12 hexadecimal digits that name `resolved`, and the seed."""
        return _digest({**self.defining(), "seed": seed})

    @property
    def pair(self) -> str:
        """12 hexadecimal digits that every framework under these settings shares."""
        return _digest({key: value for key, value in self.defining().items() if key != "framework"})

    def defining(self) -> dict[str, Any]:
        """`resolved`, but for what leaves the bits as they are."""
        resolved = self.resolved()
        return resolved | {"train": {k: v for k, v in resolved["train"].items() if k not in _INDIFFERENT}}

    @property
    def label(self) -> str:
        """The beginning of its runs' names, short: the UI cuts names at about 18 characters."""
        return " ".join(filter(None, (self.framework, self.sweep.get("label", ""))))


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()


@dataclass
class SeedResult:
    """What training with one seed left."""

    seed: int
    history: list[dict[str, Any]] = field(default_factory=list)
    """Two rows an epoch, `split` train and validation: the columns of `history.csv`."""
    model: str | None = None
    """The name of the model that was logged."""

    def last(self, split: str, name: str) -> float:
        """A column of the last epoch."""
        return float([row for row in self.history if row["split"] == split][-1][name])

    def add_epoch(
        self,
        epoch: int,
        train: Mapping[str, float],
        validation: Mapping[str, float],
        *,
        seconds: float,
        examples: int,
    ) -> None:
        """Add the two rows of an epoch; `seconds` and `examples` are those of training."""
        common = {"seed": self.seed, "epoch": epoch}
        self.history.append(common | {"split": "train", **train, "seconds": seconds, "examples": examples})
        self.history.append(common | {"split": "validation", **validation, "seconds": None})

    @property
    def training_seconds(self) -> float:
        """Wall time of training over all epochs, evaluation and tracking apart."""
        return float(sum(row["seconds"] for row in self.history if row["split"] == "train"))

    @property
    def images_per_second(self) -> float:
        """Training throughput over all epochs."""
        return float(sum(row.get("examples", 0) for row in self.history) / self.training_seconds)
