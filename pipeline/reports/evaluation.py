"""Publish evaluated networks: files, figures, the MLflow runs that trained them, the terminal."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..config.schema.tracking import TrackingConfig
from ..core import provenance
from ..core.files import atomic_directory, atomic_file, read_text
from ..core.frameworks import find
from ..core.paths import main_root
from ..data.array_file import ArrayFile
from ..evaluation import metrics
from ..evaluation.result_files import Evaluation, means_of, write_files
from ..evaluation.summary import summarise
from ..tracking.references import RunReferences
from ..tracking.tracker import Tracker
from ..tracking.views import LEADERBOARD, SIDE
from ..training.results import HistoryRow, read_history


def publish_evaluation(evaluation: Evaluation, output: Path, tracking: TrackingConfig) -> None:
    """Write files and figures into `output`, which holds the models; log them to the MLflow runs that trained these.

    Raises `UserError` if `runs.json` or `history.csv`, which `train` wrote there, is missing or cannot be read.
    """
    advice = f"run `dvc repro train@{evaluation.framework}`"
    references = RunReferences.read(output / "runs.json", advice)
    history = read_history(read_text(output / "history.csv", advice))
    write_files(evaluation, output)
    plots = output / "plots"
    with atomic_directory(plots) as building:  # an earlier evaluation may have drawn other seeds
        if evaluation.config.plots:
            _draw(evaluation, history, building)
    _track(evaluation, references, plots, tracking)
    for model in evaluation.models:
        values = ", ".join(f"test {name} {value:.4f}" for name, value in asdict(model.scores).items())
        latency, speed = model.inference.latency_p50_milliseconds, model.inference.images_per_second
        print(f"{evaluation.framework} s{model.seed}: {values}, {latency:.2f} ms an image, {speed:,.0f} images/s")


def _draw(evaluation: Evaluation, history: Sequence[HistoryRow], plots: Path) -> None:
    """Draw each kind of figure for all seeds together and, if there are several, for each seed in `seed_<seed>`."""
    from .figures.curves import learning_curves  # matplotlib takes a second, and a sweep may ask for no figures
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
    parent, tags = None, _tags_of_restored(evaluation)
    if references.group:
        rows = [model.tracked for model in evaluation.models]
        means = _rounded(means_of(rows) | {f"{name}_std": std for name, std in _deviations(rows).items()})
        files = sorted(plots.glob("*.png"))
        shown = tags | {LEADERBOARD: True}
        parent = tracker.add_results(references.group, means, name=f"{framework} restored", tags=shown, files=files)
    with tempfile.TemporaryDirectory() as scratch:
        for model in evaluation.models:
            reference = references.seeds[model.seed]
            figures = plots / f"seed_{model.seed}" if several else plots
            predictions = Path(scratch) / f"seed_{model.seed}" / "predictions.npz"
            with atomic_file(predictions) as part:
                np.savez(part, logits=model.outputs, labels=evaluation.labels)
            tracker.add_results(
                reference.run,
                model.tracked,
                name=f"{framework} s{model.seed} restored",
                tags=tags | {"seed": model.seed, LEADERBOARD: None if references.group else True},
                model=reference.model,
                files=[*sorted(figures.glob("*.png")), predictions],
                parent=parent,
            )
    tracker.drain()


def _tags_of_restored(evaluation: Evaluation) -> dict[str, Any]:
    """Return the tags of a run for models whose training is in no run of this store, see `Tracker.add_results`."""
    framework, dataset = find(evaluation.framework), evaluation.dataset
    return {
        "stage": "evaluate",
        "framework": framework.name,
        SIDE: framework.style.title,
        "data": dataset.name,
        "data.fingerprint": dataset.fingerprint,
        **provenance.origin(),
        "mlflow.runColor": framework.style.colour,
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Round what is for readers alone: MLflow shows every digit, and cuts the last ones off."""
    digits = {"percent": 2, "percent_std": 2, "second": 0}
    return {
        name: round(value, digits[end]) if (end := _end(name)) in digits else value for name, value in values.items()
    }


def _end(name: str) -> str:
    last = name.rpartition("/")[2].split("_")
    return "_".join(last[-2:]) if last[-1] == "std" else last[-1]


def _deviations(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return standard deviations over the seeds, by name; empty for one seed."""
    return {name: summarise([row[name] for row in rows]).std for name in rows[0]} if len(rows) > 1 else {}
