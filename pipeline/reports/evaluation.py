"""Publish evaluated networks: files, figures, the MLflow runs that trained them, the terminal."""

import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config.schema.evaluate import EvaluateConfig
from ..config.schema.tracking import TrackingConfig
from ..core.files import read_text, write_json
from ..core.frameworks import find
from ..core.paths import main_root
from ..data.array_file import ArrayFile
from ..data.dataset import Dataset
from ..evaluation import metrics
from ..evaluation.predictions import EvaluatedModel
from ..evaluation.summary import summarise
from ..tracking.references import RunReferences
from ..tracking.tracker import Tracker
from ..training.results import HistoryRow, read_history


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


def publish_evaluation(evaluation: Evaluation, output: Path, tracking: TrackingConfig) -> None:
    """Write files and figures into `output`, which holds the models; log them to the MLflow runs that trained these.

    Raises `UserError` if `runs.json` or `history.csv`, which `train` wrote there, is missing or cannot be read.
    """
    advice = f"run `dvc repro train@{evaluation.framework}`"
    references = RunReferences.read(output / "runs.json", advice)
    history = read_history(read_text(output / "history.csv", advice))
    _write_files(evaluation, output)
    plots = output / "plots"
    shutil.rmtree(plots, ignore_errors=True)  # an earlier evaluation may have drawn other seeds
    plots.mkdir()
    if evaluation.config.plots:
        _draw(evaluation, history, plots)
    _track(evaluation, references, plots, tracking)
    for model in evaluation.models:
        values = ", ".join(f"test {name} {value:.4f}" for name, value in asdict(model.scores).items())
        latency, speed = model.inference.latency_p50_milliseconds, model.inference.images_per_second
        print(f"{evaluation.framework} s{model.seed}: {values}, {latency:.2f} ms an image, {speed:,.0f} images/s")


def _write_files(evaluation: Evaluation, output: Path) -> None:
    """Write `predictions.npz`, `metrics.json`, `inference.json`, `scores.json` and `confusion.csv`."""
    models, labels, classes = evaluation.models, evaluation.labels, evaluation.dataset.classes
    seeds = np.array([model.seed for model in models], np.int64)
    np.savez(output / "predictions.npz", logits=evaluation.outputs, labels=labels, seeds=seeds)
    confusion = np.sum([metrics.confusion_matrix(model.outputs, labels) for model in models], axis=0)
    by_class = {name: values.tolist() for name, values in metrics.per_class(confusion).items()}
    write_json(output / "metrics.json", {"test": _means([asdict(model.scores) for model in models])})
    write_json(output / "inference.json", {"inference": _means([asdict(model.inference) for model in models])})
    write_json(
        output / "scores.json",
        {
            "seeds": {str(model.seed): asdict(model.scores) for model in models},
            "classes": {label: {k: v[i] for k, v in by_class.items()} for i, label in enumerate(classes)},
            "confusion": confusion.tolist(),
        },
    )
    with (output / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for model in models:
            predicted = metrics.predicted_labels(model.outputs)
            writer.writerows((classes[a], classes[p]) for a, p in zip(labels, predicted, strict=True))


def _draw(evaluation: Evaluation, history: Sequence[HistoryRow], plots: Path) -> None:
    """Draw each kind of figure for all seeds together and, if there are several, for each seed in `seed_<seed>`."""
    from .figures.curves import (
        learning_curves,
    )  # importing matplotlib takes a second, and a sweep may ask for no figures
    from .figures.style import save

    style, images = find(evaluation.framework).style, evaluation.dataset.split("test").images
    save(learning_curves({style: history}), plots / "learning_curves.png")
    _draw_outputs(evaluation, evaluation.outputs, images, plots)
    for model in evaluation.models if len(evaluation.models) > 1 else ():
        _draw_outputs(evaluation, model.outputs[None], images, plots / f"seed_{model.seed}")


def _draw_outputs(evaluation: Evaluation, outputs: np.ndarray, images: ArrayFile, folder: Path) -> None:
    from .figures import evaluation as figures
    from .figures.style import save

    style, classes = find(evaluation.framework).style, evaluation.dataset.classes
    flat, repeated = outputs.reshape(-1, outputs.shape[-1]), np.tile(evaluation.labels, len(outputs))
    matrix = metrics.confusion_matrix(flat, repeated)
    save(figures.confusion(matrix, classes, style), folder / "confusion.png")
    save(figures.reliability(flat, repeated, evaluation.config.calibration_bins, style), folder / "reliability.png")
    save(figures.per_class(matrix, classes, style), folder / "per_class.png")
    save(figures.mistakes(images, evaluation.labels, outputs, classes, style), folder / "mistakes.png")


def _track(evaluation: Evaluation, references: RunReferences, plots: Path, tracking: TrackingConfig) -> None:
    """Log scores, figures and predictions of each seed to its run, and means over the seeds to the group's run."""
    tracker, framework, several = Tracker(tracking, main_root()), evaluation.framework, len(evaluation.models) > 1
    tags, parent = {"stage": "evaluate", "framework": framework}, None
    if references.group:
        rows = [model.tracked for model in evaluation.models]
        means = _means(rows) | {f"{name}_std": std for name, std in _deviations(rows).items()}
        files = sorted(plots.glob("*.png"))
        parent = tracker.add_results(references.group, means, name=f"{framework} restored", tags=tags, files=files)
    with tempfile.TemporaryDirectory() as scratch:
        for model in evaluation.models:
            reference = references.seeds[model.seed]
            figures = plots / f"seed_{model.seed}" if several else plots
            predictions = Path(scratch) / f"seed_{model.seed}" / "predictions.npz"
            predictions.parent.mkdir()
            np.savez(predictions, logits=model.outputs, labels=evaluation.labels)
            tracker.add_results(
                reference.run,
                model.tracked,
                name=f"{framework} s{model.seed} restored",
                tags=tags,
                model=reference.model,
                files=[*sorted(figures.glob("*.png")), predictions],
                parent=parent,
            )
    tracker.drain()


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means over the seeds, by name."""
    return {name: summarise([row[name] for row in rows]).mean for name in rows[0]}


def _deviations(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return standard deviations over the seeds, by name; empty for one seed."""
    return {name: summarise([row[name] for row in rows]).std for name in rows[0]} if len(rows) > 1 else {}
