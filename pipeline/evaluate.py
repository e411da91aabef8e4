"""Stage `evaluate`: the saved models of one framework on the whole test split."""

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics
from .config import EvaluateConfig, TrackingConfig
from .data.dataset import Dataset
from .data.feed import pieces_of
from .data.obtain import PREPARED
from .data.stored import StoredArray
from .entry import main_root, stage
from .errors import UserError
from .figures import evaluation as figures
from .figures.looks import LOOKS
from .figures.style import save
from .models import classifier as doors
from .progress import steps
from .statistics import summarise
from .timing import Inference, inference
from .tracking import Tracker

_REPORTED = 1024  # images between two movements of the bar


@dataclass(frozen=True)
class Judged:
    """One seed's model on the test split."""

    seed: int
    outputs: np.ndarray
    """float32 (N, classes)."""
    scores: metrics.Scores
    inference: Inference

    @property
    def tracked(self) -> dict[str, float]:
        """What goes to MLflow, under the names that it has there."""
        found = {f"test/{name}": value for name, value in asdict(self.scores).items()}
        return found | {
            "test/error_percent": 100 * (1 - self.scores.accuracy),  # bars start at 0: accuracies all look alike
            "time/inference_p50_milliseconds": self.inference.latency_p50_milliseconds,
            "time/inference_p95_milliseconds": self.inference.latency_p95_milliseconds,
            "throughput/inference_images_per_second": self.inference.images_per_second,
        }


@stage("evaluate", "framework", "seeds", "evaluate", "tracking")
def main(*, framework: str, seeds: Sequence[int], evaluate: EvaluateConfig, tracking: TrackingConfig) -> None:
    """The DVC stage."""
    judge(Path("results") / framework, framework, seeds, evaluate, tracking, Dataset.open(PREPARED))


def judge(
    output: Path,
    framework: str,
    seeds: Sequence[int],
    evaluate: EvaluateConfig,
    tracking: TrackingConfig,
    dataset: Dataset,
) -> None:
    """Predict, judge, draw into `output`, where the models are; add all to the MLflow runs that trained them."""
    test = dataset.split("test")
    labels = np.asarray(test.labels)
    judged = _predict(output, framework, seeds, test.images, labels, evaluate)
    test.require_unchanged()
    outputs = np.stack([one.outputs for one in judged])
    np.savez(output / "predictions.npz", logits=outputs, labels=labels, seeds=np.array(seeds, np.int64))
    matrix = sum(metrics.confusion_matrix(one.outputs, labels) for one in judged)
    _write_metrics(output, judged, matrix, dataset)
    _write_confusion(output / "confusion.csv", outputs, labels, dataset.classes)
    plots = output / "plots"
    shutil.rmtree(plots, ignore_errors=True)  # of an earlier evaluation, perhaps of other seeds
    plots.mkdir()
    if evaluate.plots:
        _draw(plots, framework, outputs, test.images, labels, evaluate, dataset)
        for one in judged if len(judged) > 1 else ():
            folder = plots / f"seed_{one.seed}"
            _draw(folder, framework, one.outputs[None], test.images, labels, evaluate, dataset)
    with tempfile.TemporaryDirectory() as scratch:
        _track(output, framework, tracking, judged, labels, Path(scratch))
    for one in judged:
        values = ", ".join(f"test {name} {value:.4f}" for name, value in asdict(one.scores).items())
        speed = (
            f"{one.inference.latency_p50_milliseconds:.2f} ms an image, {one.inference.images_per_second:,.0f} images/s"
        )
        print(f"{framework} s{one.seed}: {values}, {speed}")


def _predict(
    output: Path,
    framework: str,
    seeds: Sequence[int],
    images: StoredArray,
    labels: np.ndarray,
    evaluate: EvaluateConfig,
) -> list[Judged]:
    judged = []
    with steps(f"evaluate {framework}", len(images) * len(seeds), "images") as progress:
        for seed in seeds:
            classifier = doors.load(output / "models" / f"seed_{seed}", framework)
            parts = []
            for piece in pieces_of(images, _REPORTED) if progress.watched else pieces_of(images):
                parts.append(classifier.predict(piece))
                progress(len(parts[-1]))
            outputs = np.concatenate(parts)
            scores = metrics.score(outputs, labels, evaluate.calibration_bins)
            speed = inference(classifier, next(pieces_of(images)))
            judged.append(Judged(seed, outputs.astype(np.float32), scores, speed))
    return judged


def _write_metrics(output: Path, judged: Sequence[Judged], confusion: Any, dataset: Dataset) -> None:
    """`metrics.json`, `inference.json`: means over the seeds; `scores.json`: by seed and class, and confusion."""
    classes = {name: values.tolist() for name, values in metrics.per_class(confusion).items()}
    by_seed_and_class = {
        "seeds": {str(one.seed): asdict(one.scores) for one in judged},
        "classes": {label: {k: v[i] for k, v in classes.items()} for i, label in enumerate(dataset.classes)},
        "confusion": confusion.tolist(),
    }
    files = {
        "metrics": {"test": _means([asdict(one.scores) for one in judged])},
        "inference": {"inference": _means([asdict(one.inference) for one in judged])},
        "scores": by_seed_and_class,
    }
    for name, content in files.items():
        (output / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Over the seeds, by name."""
    return {name: summarise([row[name] for row in rows]).mean for name in rows[0]}


def _deviations(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Standard deviations over the seeds, by name; none of one seed."""
    return {name: summarise([row[name] for row in rows]).std for name in rows[0]} if len(rows) > 1 else {}


def _write_confusion(path: Path, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for logits in outputs:
            predicted = metrics.predicted_labels(logits)
            writer.writerows((classes[a], classes[p]) for a, p in zip(labels, predicted, strict=True))


def _draw(
    folder: Path,
    framework: str,
    outputs: np.ndarray,
    images: StoredArray,
    labels: np.ndarray,
    evaluate: EvaluateConfig,
    dataset: Dataset,
) -> None:
    look, classes = LOOKS[framework], dataset.classes
    flat, repeated = outputs.reshape(-1, outputs.shape[-1]), np.tile(labels, len(outputs))
    matrix = metrics.confusion_matrix(flat, repeated)
    save(figures.confusion(matrix, classes, look), folder / "confusion.png")
    save(figures.reliability(flat, repeated, evaluate.calibration_bins, look), folder / "reliability.png")
    save(figures.per_class(matrix, classes, look), folder / "per_class.png")
    save(figures.mistakes(images, labels, outputs, classes, look), folder / "mistakes.png")


def _track(
    output: Path,
    framework: str,
    tracking: TrackingConfig,
    judged: Sequence[Judged],
    labels: np.ndarray,
    scratch: Path,
) -> None:
    try:
        runs = json.loads((output / "runs.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{output / 'runs.json'}: cannot be read ({error}); run `dvc repro train@{framework}`"
        ) from error
    tracker = Tracker(tracking, main_root())
    plots = output / "plots"
    parent = None
    tags = {"stage": "evaluate", "framework": framework}
    if runs["group"]:
        rows = [one.tracked for one in judged]
        means = _means(rows) | {f"{name}_std": s for name, s in _deviations(rows).items()}
        name, files = f"{framework} restored", sorted(plots.glob("*.png"))
        parent = tracker.add_results(runs["group"], means, name=name, tags=tags, files=files)
    for one in judged:
        known = runs["seeds"][str(one.seed)]
        own = plots / f"seed_{one.seed}" if len(judged) > 1 else plots
        predictions = scratch / f"seed_{one.seed}" / "predictions.npz"
        predictions.parent.mkdir()
        np.savez(predictions, logits=one.outputs, labels=labels)
        tracker.add_results(
            known["run"],
            one.tracked,
            name=f"{framework} s{one.seed} restored",
            tags=tags,
            model=known["model"],
            files=[*sorted(own.glob("*.png")), predictions],
            parent=parent,
        )
    tracker.drain()


if __name__ == "__main__":
    main(sys.argv[1:])
