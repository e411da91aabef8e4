"""The files that an evaluation leaves beside the models: every prediction, and the scores."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..config.schema.evaluate import EvaluateConfig
from ..core.files import atomic_file, write_json
from ..data.dataset import Dataset
from . import metrics
from .predictions import EvaluatedModel
from .summary import summarise


@dataclass(frozen=True)
class Evaluation:
    """The networks of all seeds of one framework, evaluated on the test split."""

    framework: str
    dataset: Dataset
    labels: np.ndarray
    """Actual classes of the test split, int64 (N,)."""
    models: Sequence[EvaluatedModel]
    """One per seed, at least one."""
    config: EvaluateConfig

    @property
    def outputs(self) -> np.ndarray:
        """Outputs of all networks, float32 (seeds, N, classes)."""
        return np.stack([model.outputs for model in self.models])


def write_files(evaluation: Evaluation, output: Path) -> None:
    """Write `predictions.npz`, `metrics.json`, `inference.json`, `scores.json` and `confusion.csv`."""
    models, labels, classes = evaluation.models, evaluation.labels, evaluation.dataset.classes
    seeds = np.array([model.seed for model in models], np.int64)
    with atomic_file(output / "predictions.npz") as part:
        np.savez(part, logits=evaluation.outputs, labels=labels, seeds=seeds)
    confusion = np.sum([metrics.confusion_matrix(model.outputs, labels) for model in models], axis=0)
    by_class = {name: values.tolist() for name, values in metrics.per_class(confusion).items()}
    write_json(output / "metrics.json", {"test": means_of([asdict(model.scores) for model in models])})
    write_json(output / "inference.json", {"inference": means_of([asdict(model.inference) for model in models])})
    write_json(
        output / "scores.json",
        {
            "seeds": {str(model.seed): asdict(model.scores) for model in models},
            "classes": {label: {k: v[i] for k, v in by_class.items()} for i, label in enumerate(classes)},
            "confusion": confusion.tolist(),
        },
    )
    with atomic_file(output / "confusion.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for model in models:
            predicted = metrics.predicted_labels(model.outputs)
            writer.writerows((classes[a], classes[p]) for a, p in zip(labels, predicted, strict=True))


def means_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means over the seeds, by name."""
    return {name: summarise([row[name] for row in rows]).mean for name in rows[0]}
