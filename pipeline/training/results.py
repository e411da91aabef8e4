"""The results of training, by seed and epoch."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from ..evaluation.summary import summarise

Metric = Literal["loss", "accuracy"]
SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")
METRICS: tuple[Metric, ...] = ("loss", "accuracy")
_COLUMNS = ("seed", "epoch", "split", "loss", "accuracy", "seconds")


@dataclass(frozen=True)
class HistoryRow:
    """The scores of one split in one epoch of one seed: a row of `history.csv`."""

    seed: int
    epoch: int
    """1, 2, ..."""
    split: Literal["train", "validation"]
    loss: float
    """Mean over the examples, in nats."""
    accuracy: float
    """In [0, 1]."""
    seconds: float | None = None
    """Training time; None for the validation split."""
    examples: int | None = None
    """Number of training examples; None for the validation split and for rows read from a file."""


@dataclass
class SeedResult:
    """The result of training one seed."""

    seed: int
    history: list[HistoryRow] = field(default_factory=list)
    """Two rows per epoch: `split` train, then validation."""
    model: str | None = None
    """Name of the logged model; None: not logged."""

    def last(self, split: str, name: Metric) -> float:
        """Return a metric of a split in the last epoch."""
        return float(getattr([row for row in self.history if row.split == split][-1], name))

    @property
    def training_seconds(self) -> float:
        """Wall time of training over all epochs, without evaluation and tracking."""
        return float(sum(row.seconds or 0 for row in self.history))

    @property
    def images_per_second(self) -> float:
        """Training throughput over all epochs, in images per second."""
        return sum(row.examples or 0 for row in self.history) / self.training_seconds


@dataclass(frozen=True)
class TrainingSummary:
    """Means over the seeds in the last epoch: `summary.json`."""

    validation_accuracy: float
    validation_loss: float
    train_images_per_second: float

    @classmethod
    def of(cls, results: Sequence[SeedResult]) -> "TrainingSummary":
        """Summarise at least one seed."""
        return cls(
            validation_accuracy=summarise([result.last("validation", "accuracy") for result in results]).mean,
            validation_loss=summarise([result.last("validation", "loss") for result in results]).mean,
            train_images_per_second=summarise([result.images_per_second for result in results]).mean,
        )


def rows_of(results: Iterable[SeedResult]) -> list[HistoryRow]:
    """Return the rows of all seeds."""
    return [row for result in results for row in result.history]


def mean(rows: Iterable[HistoryRow], split: str, name: Metric, epoch: int) -> float:
    """Return the mean of a metric over the seeds, in one split and epoch (1, 2, ...)."""
    return float(np.mean([getattr(row, name) for row in rows if row.split == split and row.epoch == epoch]))


def history_csv(rows: Iterable[HistoryRow]) -> str:
    """Return the text of `history.csv`, floats with nine significant digits."""
    lines = [",".join(_COLUMNS)]
    for row in map(asdict, rows):
        cells = (f"{row[c]:.9g}" if isinstance(row[c], float) else row[c] for c in _COLUMNS)
        lines.append(",".join("" if cell is None else str(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def curves_csv(rows: Sequence[HistoryRow], epochs: int) -> str:
    """Return `curves.csv`: means over the seeds by epoch, with six significant digits."""
    columns = [(split, name) for split in SPLITS for name in METRICS]
    lines = [",".join(["epoch", *(f"{split}_{name}" for split, name in columns)])]
    for epoch in range(1, epochs + 1):
        means = (f"{mean(rows, split, name, epoch):.6g}" for split, name in columns)
        lines.append(",".join([str(epoch), *means]))
    return "\n".join(lines) + "\n"


def read_history(text: str) -> list[HistoryRow]:
    """Parse the output of `history_csv`. Raises KeyError or ValueError for other text."""
    return [
        HistoryRow(
            seed=int(row["seed"]),
            epoch=int(row["epoch"]),
            split="train" if row["split"] == "train" else "validation",
            loss=float(row["loss"]),
            accuracy=float(row["accuracy"]),
            seconds=float(row["seconds"]) if row["seconds"] else None,
        )
        for row in csv.DictReader(io.StringIO(text))
    ]
