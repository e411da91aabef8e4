"""What is kept of a training run: its files, and everything in MLflow but the metrics of the epochs."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import environment
from .checkpoint import Checkpoint
from .data.obtain import PREPARED
from .fairness import sides
from .figures.looks import LOOKS
from .job import Job, SeedResult
from .models import classifier as doors
from .models.classifier import Classifier
from .statistics import summarise
from .tracking import Run, Tracker
from .tracking.views import LEADERBOARD, SIDE, SIDES


def finish_seed(job: Job, classifier: Classifier, run: Run, result: SeedResult) -> None:
    """Save the model, here and in MLflow, and describe the run."""
    run.flush()
    directory = save_model(job, classifier, result.seed)
    run.log_metrics({"system/peak_memory_mebibytes": environment.peak_memory_bytes() / 2**20}, step=0)
    if job.tracking.log_model:
        shape = (2, *job.dataset.image_shape)
        result.model = run.log_model(
            job.framework,
            classifier.export(),
            name=f"{job.framework}-{job.model.name}-s{result.seed}",
            step=job.train.epochs * -(-len(job.dataset.split("train").labels) // job.train.batch_size),
            example=np.zeros(shape, job.train.precision),
            classes=len(job.dataset.classes),
            files=[directory / "classifier.json", directory / "weights.safetensors"],
            metrics=[f"{split}/{name}" for split in ("train", "validation") for name in ("loss", "accuracy")],
        )
    run.describe(_description(job, [result]))
    run.log_text(_history_csv([result]), "history.csv")


def save_model(job: Job, classifier: Classifier, seed: int) -> Path:
    """Write the trained network into its folder, and return that."""
    directory = job.output / "models" / f"seed_{seed}"
    doors.save(classifier, job.framework, directory)
    return directory


def log_setup(job: Job, run: Run, classifier: Classifier, seed: int | None) -> None:
    """Everything that is known before the first step; `seed` None: of the group of all seeds."""
    resolved = job.resolved() | ({"seeds": list(job.seeds)} if seed is None else {"seed": seed})
    device = asdict(classifier.device) | {"execution": classifier.execution}
    run.log_params(resolved | {"parameters": classifier.architecture.parameter_count})
    facts = environment.machine() | {
        "device": device,
        "git": {**environment.git(), "diff": None},
        "dvc": environment.dvc(),
    }
    run.log_text(json.dumps(facts, indent=2), "environment.json")
    run.log_text(json.dumps(resolved, indent=2), "config.json")
    run.log_text(json.dumps(manifest(job, classifier), indent=2), "manifest.json")
    if diff := environment.git().get("diff"):
        run.log_text(diff, "git.diff")
    source = environment.data_source(str(PREPARED), job.dataset.name)
    run.log_dataset(name=job.dataset.name, fingerprint=job.dataset.fingerprint, context="training", source=source)


def manifest(job: Job, classifier: Classifier) -> dict[str, Any]:
    """What this side was asked (`settings`), and on what it was done: what `compare` holds against the other side's."""
    settings = {key: value for key, value in job.resolved().items() if key != "framework"}
    settings |= {"seeds": list(job.seeds), "parameters": classifier.architecture.parameter_count}
    device = classifier.device
    return {"settings": settings} | sides(
        job.framework, classifier.execution, device=device.name, threads=device.threads
    )


def tags_of(job: Job, classifier: Classifier, seed: int | None) -> dict[str, Any]:
    """What runs are searched and grouped by; `seed` None: of the group of all seeds."""
    machine, device = environment.machine(), classifier.device
    tags = {
        "stage": "train",
        "framework": job.framework,
        "seed": seed,
        SIDE: SIDES[job.framework],
        LEADERBOARD: True if seed is None or (job.sweep and len(job.seeds) == 1) else None,
        "group": job.key(),
        "pair": job.pair,
        "config.key": job.key(seed),
        "sweep": job.sweep.get("id"),
        "sweep.job": job.sweep.get("job"),
        "data": job.dataset.name,
        "data.fingerprint": job.dataset.fingerprint,
        "model": job.model.name,
        **environment.origin(),
        "git.branch": environment.git().get("branch"),
        "device": device.type,
        "device.name": device.name if device.type == "gpu" else machine["cpu"],
        "device.threads": device.threads,
        "device.cores": machine["cores_logical"],
        "device.memory_gib": round(machine["memory_bytes"] / 2**30, 1),
        "deterministic": job.train.deterministic,
        "execution": classifier.execution,
        "python": machine["python"],
        "mlflow.runColor": LOOKS[job.framework].colour,  # as in every figure
    }
    for position, gpu in enumerate(machine["gpus"]):
        tags |= {f"device.gpu{position}.{key}": value for key, value in gpu.items()}
    return tags | {f"version.{name}": version for name, version in machine["versions"].items()}


def write_references(
    job: Job, tracker: Tracker, results: Sequence[SeedResult], group: Checkpoint | None, seeds: Sequence[Checkpoint]
) -> None:
    """`runs.json`: the runs and models in MLflow, where it has given them ids."""
    runs = {
        "group": tracker.reference(group.slot) if group else None,
        "seeds": {
            str(result.seed): {
                "run": tracker.reference(seed.slot),
                "model": tracker.model_reference(seed.slot, result.model) if result.model else None,
            }
            for result, seed in zip(results, seeds, strict=True)
        },
    }
    (job.output / "runs.json").write_text(json.dumps(runs, indent=2) + "\n")


def write_files(job: Job, classifier: Classifier, results: Sequence[SeedResult]) -> None:
    """`history.csv`, `curves.csv` (means over the seeds), JSON `manifest`, `summary`, `learning_curves.png`."""
    from .figures.curves import learning_curves
    from .figures.style import save

    (job.output / "history.csv").write_text(_history_csv(results))
    epochs = range(1, job.train.epochs + 1)
    names = [(split, name) for split in ("train", "validation") for name in ("loss", "accuracy")]
    with (job.output / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *(f"{split}_{name}" for split, name in names)])
        for epoch in epochs:
            means = [_mean(results, split, name, epoch) for split, name in names]
            writer.writerow([epoch, *(f"{mean:.6g}" for mean in means)])
    (job.output / "manifest.json").write_text(json.dumps(manifest(job, classifier), indent=2) + "\n")
    summary = {
        "validation_accuracy": summarise([r.last("validation", "accuracy") for r in results]).mean,
        "validation_loss": summarise([r.last("validation", "loss") for r in results]).mean,
        "train_images_per_second": summarise([r.images_per_second for r in results]).mean,
    }
    (job.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    save(learning_curves({LOOKS[job.framework]: _rows(results)}), job.output / "learning_curves.png")


def log_group(job: Job, group: Run, results: Sequence[SeedResult], compile_seconds: float) -> None:
    """Means over the seeds under the names that the seeds use; standard deviation and interval beside them."""
    for split in ("train", "validation"):
        for name in ("loss", "accuracy"):
            values = [_mean(results, split, name, epoch) for epoch in range(1, job.train.epochs + 1)]
            group.log_series({f"{split}/{name}": values}, first_step=1)
            if len(results) > 1:
                s = summarise([r.last(split, name) for r in results])
                spread = {"std": s.std, "ci95_low": s.low, "ci95_high": s.high}
                group.log_metrics({f"{split}/{name}_{k}": v for k, v in spread.items()}, step=job.train.epochs)
    speed = summarise([r.images_per_second for r in results]).mean
    group.log_metrics({"throughput/train_images_per_second": speed, "time/compile_seconds": compile_seconds}, step=0)
    group.describe(_description(job, results))
    group.log_file(job.output / "history.csv")
    group.log_file(job.output / "learning_curves.png")


def _description(job: Job, results: Sequence[SeedResult]) -> str:
    seeds = ", ".join(str(r.seed) for r in results)
    rows = {
        "network": f"{job.model.name} ({job.architecture.parameter_count:,} parameters)",
        "data": f"{job.dataset.name} (`{job.dataset.fingerprint[:8]}`)",
        "training": f"{job.train.epochs} epochs, batch {job.train.batch_size}, {job.train.optimizer.name} "
        f"{job.train.optimizer.learning_rate:g}, {job.train.precision}",
        "seeds": seeds,
        "validation accuracy": f"**{summarise([r.last('validation', 'accuracy') for r in results]).mean:.4f}**",
        "training speed": f"{summarise([r.images_per_second for r in results]).mean:,.0f} images/s",
    }
    head = f"**{job.framework}**\n\n| what | value |\n|---|---|\n"
    return head + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _rows(results: Sequence[SeedResult]) -> list[dict[str, Any]]:
    return [row for result in results for row in result.history]


def _history_csv(results: Sequence[SeedResult]) -> str:
    columns = ("seed", "epoch", "split", "loss", "accuracy", "seconds")
    lines = [",".join(columns)]
    for row in _rows(results):
        cells = (f"{row[c]:.9g}" if isinstance(row[c], float) else row[c] for c in columns)
        lines.append(",".join("" if cell is None else str(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def _mean(results: Sequence[SeedResult], split: str, name: str, epoch: int) -> float:
    return float(np.mean([row[name] for row in _rows(results) if row["split"] == split and row["epoch"] == epoch]))
