"""Stage `train`: one framework, all seeds.

`python -m pipeline.train [overrides]` trains under `outputs/`; with `-m`, every combination of comma-separated values
under `multirun/`; the DVC stages `train@tensorflow` and `train@pytorch` train from `params.yaml` into `results/`.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import environment, metrics
from .data.dataset import Dataset
from .data.feed import Feed, predict
from .data.obtain import PREPARED
from .data.plan import EpochPlan, draw_epoch
from .entry import end_on_sigterm, main_root, parse_call, select, stage_sections, user_errors
from .environment import memory_limit
from .errors import TrainingDivergedError
from .job import Job, SeedResult
from .models import classifier as doors
from .models.classifier import Classifier, EpochResult
from .progress import Steps, steps
from .record import finish_seed, log_group, log_setup, tags_of, write_files
from .tracking import Run, Tracker, ensure_store

SECTIONS = stage_sections("train", "framework", "model", "train", "seeds", "tracking")
_REPORT_SECONDS = 0.5  # how often the bar moves while a person watches: one host synchronisation each


def train_job(job: Job) -> list[SeedResult]:
    """Train every seed of a job; files go to `job.output`, everything else to MLflow."""
    classifier = doors.create(job.framework, job.architecture, job.train)
    tracker = Tracker(job.tracking, main_root())
    training = job.dataset.split("train")
    count = len(training.labels)
    limit = memory_limit(job.train.memory_mebibytes, classifier.device.type)
    feed = Feed(classifier, training, limit, min(job.train.batch_size, count))
    sizes = {min(job.train.batch_size, count), count % job.train.batch_size} - {0}
    job.architecture.require_normalisable(list(sizes))
    compile_seconds = classifier.compile(sorted(sizes, reverse=True))
    device = classifier.device
    print(
        f"{job.label}: {job.model.name}, {job.architecture.parameter_count:,} parameters, {count:,} images, "
        f"{classifier.execution} {job.train.precision} on {device.name}, {device.threads} threads, "
        f"{'compiled' if classifier.execution == 'compiled' else 'warmed up'} in {compile_seconds:.1f} s"
        + (f"; {training.images.nbytes / 2**20:,.0f} MiB of images streamed from disk" if feed.streamed else ""),
        flush=True,
    )
    results: list[SeedResult] = []
    with contextlib.ExitStack() as stack:
        group, parent = None, job.sweep.get("parent")
        if not (job.sweep and len(job.seeds) == 1):  # a group of one, inside a sweep, would only be in the way
            group = stack.enter_context(tracker.run(job.label, parent=parent, tags=tags_of(job, classifier, None)))
            parent = group.id
            log_setup(job, group, classifier, None)
        total = count * job.train.epochs * len(job.seeds)
        progress = stack.enter_context(steps(f"train {job.label}", total, "images"))
        for seed in job.seeds:
            with tracker.run(f"{job.label} s{seed}", parent=parent, tags=tags_of(job, classifier, seed)) as run:
                log_setup(job, run, classifier, seed)
                run.log_metrics({"time/compile_seconds": compile_seconds}, step=0)
                with run.system_metrics(job.tracking.system_metrics_seconds):
                    result = _train_seed(job, classifier, feed, run, seed, progress)
                finish_seed(job, classifier, run, result)
            results.append(result)
        write_files(job, classifier, results, group)
        if group:
            log_group(job, group, results, compile_seconds)
    _print_costs(job, results, tracker)
    return results


def _print_costs(job: Job, results: Sequence[SeedResult], tracker: Tracker) -> None:
    training = sum(result.training_seconds for result in results)
    print(
        f"{job.label}: {training:.1f} s training; MLflow: {tracker.open_seconds:.1f} s import and opening, "
        f"{tracker.seconds:.2f} s tracking ({tracker.seconds / training:.1%} of training), "
        f"{tracker.model_seconds:.2f} s logging {len(results)} models; "
        f"peak memory {environment.peak_memory_bytes() / 2**20:,.0f} MiB",
        flush=True,
    )


def _train_seed(job: Job, classifier: Classifier, feed: Feed, run: Run, seed: int, progress: Steps) -> SeedResult:
    doors.initialise(classifier, seed)
    held_out = job.dataset.split("validation")
    count = len(job.dataset.split("train").labels)
    result = SeedResult(seed, run.id)
    for epoch in range(1, job.train.epochs + 1):
        plan = draw_epoch(job.train, examples=count, seed=seed, epoch=epoch - 1)
        trained = _train_epoch(classifier, feed, plan, progress)
        first_step = (epoch - 1) * plan.steps
        run.log_series({"train/step_loss": trained.loss}, first_step=first_step)
        _require_finite(job, trained.loss, first_step, epoch, seed)
        scores = metrics.score(predict(classifier, held_out.images), held_out.labels)
        train = {
            "loss": float(np.average(trained.loss, weights=plan.batch_sizes)),
            "accuracy": float(trained.correct.sum() / count),
        }
        validation = {"loss": scores.loss, "accuracy": scores.accuracy}
        result.add_epoch(epoch, train, validation, seconds=trained.seconds, examples=count)
        run.log_metrics(
            {f"train/{name}": value for name, value in train.items()}
            | {f"validation/{name}": value for name, value in validation.items()}
            | {
                "time/epoch_seconds": trained.seconds,
                "throughput/train_images_per_second": count / trained.seconds,
                "train/learning_rate": plan.learning_rate[-1],
            },
            step=epoch,
        )
        progress.say(
            f"{job.label} s{seed} epoch {epoch}/{job.train.epochs}: loss {train['loss']:.4f} "
            f"accuracy {train['accuracy']:.4f}, validation loss {scores.loss:.4f} accuracy {scores.accuracy:.4f}, "
            f"{count / trained.seconds:,.0f} images/s"
        )
    return result


def _train_epoch(classifier: Classifier, feed: Feed, plan: EpochPlan, progress: Steps) -> EpochResult:
    """The whole plan, in pieces of half a second while a person watches the bar: the same bits."""
    parts: list[EpochResult] = []
    steps_taken, seconds, waited = 0, 0.0, feed.waited
    for piece in feed.pieces(plan):
        position = 0
        while position < piece.steps:
            pace = steps_taken / seconds if seconds else plan.steps / 20
            stop = position + max(1, round(pace * _REPORT_SECONDS)) if progress.watched else piece.steps
            part = piece.segment(position, min(stop, piece.steps))
            parts.append(classifier.train_epoch(part))
            seconds += parts[-1].seconds
            position += part.steps
            steps_taken += part.steps
            progress(len(part.order))
    loss = np.concatenate([part.loss for part in parts])
    correct = np.concatenate([part.correct for part in parts])
    return EpochResult(loss, correct, seconds + feed.waited - waited)


def _require_finite(job: Job, loss: np.ndarray, first_step: int, epoch: int, seed: int) -> None:
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        raise TrainingDivergedError(
            f"the training loss is {loss[bad[0]]} at step {first_step + bad[0]} (epoch {epoch}, seed {seed}); "
            f"train.optimizer.learning_rate = {job.train.optimizer.learning_rate} may be too high"
        )


@user_errors
def main(arguments: Sequence[str]) -> None:
    """The DVC stage, from a snapshot (`--params`); a Hydra application otherwise."""
    end_on_sigterm()
    if not any(argument.split("=")[0] == "--params" for argument in arguments):
        from .sweep import hydra_app

        hydra_app(arguments)
        return
    config = parse_call("train", arguments).config
    ensure_store(main_root())
    output = Path("results") / config.framework
    output.mkdir(parents=True, exist_ok=True)
    train_job(Job(**select(config, SECTIONS), dataset=Dataset.open(PREPARED), output=output))


if __name__ == "__main__":
    main(sys.argv[1:])
