"""What training sends to MLflow: a run for each seed, and one above them that holds the means."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..core import provenance
from ..core.frameworks import find
from ..core.machine import machine, peak_memory_bytes
from ..core.paths import PREPARED
from ..evaluation.summary import summarise
from ..models.backend import EpochResult
from ..tracking.references import RunReferences, SeedReference
from ..tracking.runs import Run
from ..tracking.views import LEADERBOARD, SIDE
from .checkpoint import Checkpoint
from .context import TrainingContext
from .result_files import manifest_of, save_model
from .results import METRICS, SPLITS, HistoryRow, SeedResult, history_csv, mean, rows_of
from .spec import RunSpec


@dataclass(frozen=True)
class Group:
    """What the runs of the seeds belong to."""

    context: TrainingContext
    run: Run | None
    """None: of one seed in a sweep, where a group of one would only be in the way."""

    @property
    def parent(self) -> str | None:
        """The run that those of the seeds lie below."""
        sweep = self.context.spec.sweep
        return self.run.reference if self.run else sweep.parent if sweep else None

    def log(self, results: Sequence[SeedResult]) -> None:
        """Log means over the seeds under the names that the seeds use, and beside them deviation and interval."""
        if self.run is None:
            return
        spec, rows = self.context.spec, rows_of(results)
        epochs = range(1, spec.train.epochs + 1)
        for split in SPLITS:
            for name in METRICS:
                means = [mean(rows, split, name, epoch) for epoch in epochs]
                self.run.log_series({f"{split}/{name}": means}, first_step=1)
                if len(results) > 1:
                    s = summarise([result.last(split, name) for result in results])
                    spread = {"std": s.std, "ci95_low": s.low, "ci95_high": s.high}
                    self.run.log_metrics({f"{split}/{name}_{k}": v for k, v in spread.items()}, step=spec.train.epochs)
        speed = summarise([result.images_per_second for result in results]).mean
        seconds = self.context.compile_seconds
        self.run.log_metrics({"throughput/train_images_per_second": speed, "time/compile_seconds": seconds}, step=0)
        self.run.describe(_description(spec, results))
        self.run.log_file(spec.output / "history.csv")


@contextmanager
def group_run(context: TrainingContext) -> Iterator[Group]:
    """Open the run above those of the seeds, where there is to be one."""
    spec = context.spec
    if spec.sweep and len(spec.seeds) == 1:
        yield Group(context, None)
        return
    parent = spec.sweep.parent if spec.sweep else None
    tags, link = tags_of(context, None), context.whole.run_link
    with context.tracker.run(spec.label, parent=parent, tags=tags, run_link=link) as run:
        _log_setup(context, run, None)
        yield Group(context, run)


@contextmanager
def seed_run(context: TrainingContext, seed: int, checkpoint: Checkpoint, parent: str | None) -> Iterator[Run]:
    """Open a seed's run, or go on with the one that its checkpoint names."""
    name, tags = f"{context.spec.label} s{seed}", tags_of(context, seed)
    with context.tracker.run(name, parent=parent, tags=tags, run_link=checkpoint.run_link) as run:
        _log_setup(context, run, seed)
        run.log_metrics({"time/compile_seconds": context.compile_seconds}, step=0)
        yield run


def log_steps(run: Run, trained: EpochResult, *, first_step: int) -> None:
    """Log the loss of every step of an epoch."""
    run.log_series({"train/step_loss": trained.loss}, first_step=first_step)


def log_epoch(run: Run, train: HistoryRow, validation: HistoryRow, *, learning_rate: float) -> None:
    """Log the scores and the speed of an epoch; `learning_rate`: of its last step."""
    assert train.seconds
    assert train.examples
    scores = {f"{row.split}/{name}": getattr(row, name) for row in (train, validation) for name in METRICS}
    speed = {
        "time/epoch_seconds": train.seconds,
        "throughput/train_images_per_second": train.examples / train.seconds,
        "train/learning_rate": learning_rate,
    }
    run.log_metrics(scores | speed, step=train.epoch)


def finish_seed(context: TrainingContext, run: Run, result: SeedResult) -> None:
    """Save the model, here and in MLflow, and describe the run."""
    spec, classifier = context.spec, context.classifier
    run.flush()
    directory = save_model(spec, classifier, result.seed)
    run.log_metrics({"system/peak_memory_mebibytes": peak_memory_bytes() / 2**20}, step=0)
    flavour = find(spec.framework).flavour
    if spec.tracking.log_model and flavour:
        result.model = run.log_model(
            flavour,
            classifier.export(),
            name=f"{spec.framework}-{spec.model.name}-s{result.seed}",
            step=spec.train.epochs * -(-context.examples // spec.train.batch_size),
            example=np.zeros((2, *spec.dataset.image_shape), spec.train.precision),
            classes=len(spec.dataset.classes),
            files=[directory / "classifier.json", directory / "weights.safetensors"],
            metrics=[f"{split}/{name}" for split in SPLITS for name in METRICS],
        )
    run.describe(_description(spec, [result]))
    run.log_text(history_csv(result.history), "history.csv")


def references_of(context: TrainingContext, results: Sequence[SeedResult]) -> RunReferences:
    """Return the runs and models in MLflow, by their ids where it has given them any."""
    tracker, seeds = context.tracker, {}
    for result, checkpoint in zip(results, context.checkpoints, strict=True):
        link = checkpoint.run_link
        model = tracker.model_reference(link, result.model) if result.model else None
        seeds[result.seed] = SeedReference(run=tracker.reference(link), model=model)
    group = context.whole.run_link
    return RunReferences(group=tracker.reference(group) if group.exists() else None, seeds=seeds)


def tags_of(context: TrainingContext, seed: int | None) -> dict[str, Any]:
    """Return what runs are searched and grouped by; `seed` None: of the group of all seeds."""
    spec, classifier, here = context.spec, context.classifier, machine()
    device, commit, style = classifier.device, provenance.git(), find(spec.framework).style
    alone = seed is None or (spec.sweep and len(spec.seeds) == 1)
    tags = {
        "stage": "train",
        "framework": spec.framework,
        "seed": seed,
        SIDE: style.title,
        LEADERBOARD: True if alone else None,
        "group": spec.key(),
        "pair": spec.pair,
        "config.key": spec.key(seed),
        "sweep": spec.sweep.id if spec.sweep else None,
        "sweep.job": spec.sweep.job if spec.sweep else None,
        "data": spec.dataset.name,
        "data.fingerprint": spec.dataset.fingerprint,
        "model": spec.model.name,
        **provenance.origin(),
        "git.branch": commit.branch if commit else None,
        "device": device.type,
        "device.name": device.name if device.type == "gpu" else here.cpu,
        "device.threads": device.threads,
        "device.cores": here.cores_logical,
        "device.memory_gib": round(here.memory_bytes / 2**30, 1),
        "deterministic": spec.train.deterministic,
        "execution": classifier.execution,
        "python": here.python,
        "mlflow.runColor": style.colour,  # as in every figure
    }
    for position, gpu in enumerate(here.gpus):
        tags |= {f"device.gpu{position}.{key}": value for key, value in asdict(gpu).items()}
    return tags | {f"version.{name}": version for name, version in here.versions.items()}


def _log_setup(context: TrainingContext, run: Run, seed: int | None) -> None:
    """Log everything that is known before the first step; `seed` None: of the group of all seeds."""
    spec, classifier, commit = context.spec, context.classifier, provenance.git()
    resolved = spec.resolved() | ({"seeds": list(spec.seeds)} if seed is None else {"seed": seed})
    run.log_params(resolved | {"parameters": classifier.architecture.parameter_count})
    facts = asdict(machine()) | {
        "device": asdict(classifier.device) | {"execution": classifier.execution},
        "git": {key: value for key, value in asdict(commit).items() if key != "diff"} if commit else {},
        "dvc": provenance.dvc(),
    }
    run.log_text(json.dumps(facts, indent=2), "environment.json")
    run.log_text(json.dumps(resolved, indent=2), "config.json")
    run.log_text(json.dumps(manifest_of(spec, classifier).model_dump(), indent=2), "manifest.json")
    if commit and commit.diff:
        run.log_text(commit.diff, "git.diff")
    source = provenance.data_source(str(PREPARED), spec.dataset.name)
    run.log_dataset(name=spec.dataset.name, fingerprint=spec.dataset.fingerprint, context="training", source=source)


def _description(spec: RunSpec, results: Sequence[SeedResult]) -> str:
    optimizer = spec.train.optimizer
    rows = {
        "network": f"{spec.model.name} ({spec.architecture.parameter_count:,} parameters)",
        "data": f"{spec.dataset.name} (`{spec.dataset.fingerprint[:8]}`)",
        "training": f"{spec.train.epochs} epochs, batch {spec.train.batch_size}, {optimizer.name} "
        f"{optimizer.learning_rate:g}, {spec.train.precision}",
        "seeds": ", ".join(str(result.seed) for result in results),
        "validation accuracy": f"**{summarise([r.last('validation', 'accuracy') for r in results]).mean:.4f}**",
        "training speed": f"{summarise([r.images_per_second for r in results]).mean:,.0f} images/s",
    }
    head = f"**{spec.framework}**\n\n| what | value |\n|---|---|\n"
    return head + "\n".join(f"| {name} | {value} |" for name, value in rows.items())
