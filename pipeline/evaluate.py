"""Stage `evaluate`: the saved models of one framework on the whole test split."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics, report
from .config import EvaluateConfig, TrackingConfig
from .data.dataset import Dataset
from .data.obtain import PREPARED
from .entry import main_root, stage
from .errors import UserError
from .models import classifier as doors
from .progress import steps
from .statistics import summarise
from .tracking import Tracker

_REPORTED = 1000  # images between two movements of the bar


@stage("evaluate", "framework", "seeds", "evaluate", "tracking")
def main(*, framework: str, seeds: Sequence[int], evaluate: EvaluateConfig, tracking: TrackingConfig) -> None:
    """Predict, judge, draw; add the numbers to the MLflow runs that trained the models."""
    output = Path("results") / framework
    dataset = Dataset.open(PREPARED)
    test = dataset.split("test")
    labels = np.asarray(test.labels)
    outputs = _predict(output, framework, seeds, test.images)
    np.savez(
        output / "predictions.npz",
        logits=outputs.astype(np.float32),
        labels=labels,
        seeds=np.array(seeds, np.int64),
    )
    scores = [asdict(metrics.score(logits, labels, evaluate.calibration_bins)) for logits in outputs]
    matrices = [metrics.confusion_matrix(logits, labels) for logits in outputs]
    _write_metrics(output, seeds, scores, sum(matrices), dataset)
    _write_confusion(output / "confusion.csv", outputs, labels, dataset.classes)
    figures = _draw(output, framework, outputs, labels, sum(matrices), evaluate, dataset)
    _track(output, framework, tracking, dict(zip(seeds, scores, strict=True)), figures)
    for seed, values in zip(seeds, scores, strict=True):
        print(f"{framework} s{seed}: " + ", ".join(f"test {name} {value:.4f}" for name, value in values.items()))


def _predict(output: Path, framework: str, seeds: Sequence[int], images: np.ndarray) -> np.ndarray:
    """Outputs of every seed's model: (seeds, N, classes)."""
    predictions = []
    with steps(f"evaluate {framework}", len(images) * len(seeds), "images") as progress:
        for seed in seeds:
            classifier = doors.load(output / "models" / f"seed_{seed}", framework)
            chunk = _REPORTED if progress.watched else len(images)
            parts = []
            for start in range(0, len(images), chunk):
                parts.append(classifier.predict(images[start : start + chunk]))
                progress(len(parts[-1]))
            predictions.append(np.concatenate(parts))
    return np.stack(predictions)


def _write_metrics(
    output: Path, seeds: Sequence[int], scores: Sequence[Mapping[str, float]], confusion: Any, dataset: Dataset
) -> None:
    """`metrics.json`, what `dvc metrics show` has room for: means over the seeds; `scores.json`: by seed and class."""
    summary: dict[str, Any] = {}
    for name in scores[0]:
        values = summarise([score[name] for score in scores])
        summary[name] = values.mean
        if values.n > 1:
            summary[f"{name}_std"] = values.std
    classes = {name: values.tolist() for name, values in metrics.per_class(confusion).items()}
    by_seed_and_class = {
        "seeds": {str(seed): dict(score) for seed, score in zip(seeds, scores, strict=True)},
        "classes": {label: {k: v[i] for k, v in classes.items()} for i, label in enumerate(dataset.classes)},
    }
    (output / "metrics.json").write_text(json.dumps({"test": summary}, indent=2) + "\n")
    (output / "scores.json").write_text(json.dumps(by_seed_and_class, indent=2) + "\n")


def _write_confusion(path: Path, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for logits in outputs:
            predicted = metrics.predicted_labels(logits)
            writer.writerows((classes[a], classes[p]) for a, p in zip(labels, predicted, strict=True))


def _draw(
    output: Path,
    framework: str,
    outputs: np.ndarray,
    labels: np.ndarray,
    confusion: Any,
    evaluate: EvaluateConfig,
    dataset: Dataset,
) -> list[Path]:
    folder = output / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    flat = outputs.reshape(-1, outputs.shape[-1])
    confidence = np.exp(metrics.log_probabilities(flat)).max(axis=1)
    correct = metrics.predicted_labels(flat) == np.tile(labels, len(outputs))
    return [
        report.confusion(confusion, dataset.classes, framework, folder / "confusion.png"),
        report.reliability(confidence, correct, evaluate.calibration_bins, framework, folder / "reliability.png"),
    ]


def _track(
    output: Path,
    framework: str,
    tracking: TrackingConfig,
    scores: Mapping[int, Mapping[str, float]],
    figures: Sequence[Path],
) -> None:
    try:
        runs = json.loads((output / "runs.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{output / 'runs.json'}: cannot be read ({error}); run `dvc repro train@{framework}`"
        ) from error
    tracker = Tracker(tracking, main_root())
    group = {f"test/{name}": summarise([s[name] for s in scores.values()]) for name in next(iter(scores.values()))}
    means = {name: s.mean for name, s in group.items()}
    spread = {f"{name}_std": s.std for name, s in group.items() if s.n > 1}
    entries = [(runs["group"], None, means | spread, figures, f"{framework} restored")]
    for seed, values in scores.items():
        known = runs["seeds"][str(seed)]
        numbers = {f"test/{name}": value for name, value in values.items()}
        entries.append((known["run"], known["model"], numbers, (), f"{framework} s{seed} restored"))
    parent = None
    for run_id, model_id, numbers, pictures, name in entries:
        if tracker.add_results(run_id, numbers, model_id=model_id, figures=pictures):
            continue
        # The models came from a cache of DVC, and the runs that trained them are in another store.
        tags = {"stage": "evaluate", "framework": framework, "origin.run": run_id}
        with tracker.run(name, parent=parent, tags=tags) as run:
            run.log_metrics(numbers, step=0)
            for picture in pictures:
                run.log_file(picture, "evaluate")
        parent = parent or run.id


if __name__ == "__main__":
    main(sys.argv[1:])
