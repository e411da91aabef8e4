"""Stage `train`: one framework, all seeds.

`python -m pipeline.train [overrides]` trains under `outputs/`; with `-m`, every combination of comma-separated values
under `multirun/`; the DVC stages `train@tensorflow` and `train@pytorch` train from `params.yaml` into `results/`.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from . import environment, metrics
from .checkpoint import FOLDER, Checkpoint, Progress, held, tidy
from .data.dataset import Dataset
from .data.feed import Feed, predict
from .data.obtain import PREPARED
from .data.plan import EpochPlan, draw_epoch
from .entry import end_on_sigterm, main_root, parse_call, select, stage_sections, user_errors
from .environment import memory_limit
from .errors import ResultError, TrainingDivergedError
from .interruption import uninterrupted
from .job import Job, SeedResult
from .models import classifier as doors
from .models.classifier import Classifier, EpochResult
from .progress import Steps, steps
from .record import finish_seed, log_group, log_setup, save_model, tags_of, write_files, write_references
from .tracking import Run, Tracker, ensure_store

SECTIONS = stage_sections("train", "framework", "model", "train", "seeds", "tracking")
_REPORT_SECONDS = 0.5  # how often the bar moves while a person watches: one host synchronisation each
_PIECE_SECONDS = 1.0  # how long a signal waits, at most
_LONG_TRAINING_SECONDS = 10.0  # shares of less say nothing


@contextlib.contextmanager
def trained(job: Job) -> Iterator[None]:
    """Train every seed of a job; files go to `job.output`, everything else to MLflow.

    Where what is done inside comes to an end, the job is done, and its checkpoints go.
    """
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
    root = main_root()
    if kept := tidy(root):
        print(f"{root / FOLDER}: {kept / 2**20:,.0f} MiB, of trainings that were cut short or are going on", flush=True)
    results: list[SeedResult] = []
    checkpoints: list[Checkpoint] = []
    with contextlib.ExitStack() as locks:
        _remove_ended(root, job, classifier, tracker)
        whole = locks.enter_context(held(root, job, classifier, None))
        with contextlib.ExitStack() as stack:
            group, parent = None, job.sweep.get("parent")
            if not (job.sweep and len(job.seeds) == 1):  # a group of one, inside a sweep, would only be in the way
                tags = tags_of(job, classifier, None)
                group = stack.enter_context(tracker.run(job.label, parent=parent, tags=tags, slot=whole.slot))
                parent = group.reference
                log_setup(job, group, classifier, None)
            total = count * job.train.epochs * len(job.seeds)
            progress = stack.enter_context(steps(f"train {job.label}", total, "images"))
            for seed in job.seeds:
                checkpoint = locks.enter_context(held(root, job, classifier, seed))
                checkpoints.append(checkpoint)
                reached = _start(job, classifier, checkpoint, seed, progress)
                results.append(SeedResult(seed, reached.history, reached.model))
                if reached.done:
                    save_model(job, classifier, seed)
                    continue
                tags, name = tags_of(job, classifier, seed), f"{job.label} s{seed}"
                with tracker.run(name, parent=parent, tags=tags, slot=checkpoint.slot) as run:
                    log_setup(job, run, classifier, seed)
                    run.log_metrics({"time/compile_seconds": compile_seconds}, step=0)
                    with run.system_metrics(job.tracking.system_metrics_seconds):
                        try:
                            _train_seed(job, classifier, feed, run, results[-1], reached, checkpoint, progress)
                        except ResultError:
                            checkpoint.discard()  # it would lead there again
                            raise
                    finish_seed(job, classifier, run, results[-1])
                reached.model, reached.done = results[-1].model, True
                checkpoint.save(classifier.state(), reached)
            write_files(job, classifier, results)
            if group:
                log_group(job, group, results, compile_seconds)
        write_references(job, tracker, results, whole if group else None, checkpoints)
        _print_costs(job, results, tracker, sum(checkpoint.seconds for checkpoint in checkpoints))
        yield
        whole.end()
        for checkpoint in (*checkpoints, whole):
            _remove(checkpoint, tracker)


def _remove_ended(root: Path, job: Job, classifier: Classifier, tracker: Tracker) -> None:
    """What a process that was killed amid the removal of its checkpoints left."""
    with held(root, job, classifier, None) as whole:
        if whole.ended:
            for seed in job.seeds:
                with held(root, job, classifier, seed) as checkpoint:
                    _remove(checkpoint, tracker)
            _remove(whole, tracker)


def _remove(checkpoint: Checkpoint, tracker: Tracker) -> None:
    checkpoint.discard()
    tracker.release(checkpoint.slot)


def _start(job: Job, classifier: Classifier, checkpoint: Checkpoint, seed: int, progress: Steps) -> Progress:
    """Where the seed's last training was cut short, or the beginning; puts the classifier there."""
    found = checkpoint.load()
    if found is None:
        doors.initialise(classifier, seed)
        return Progress()
    state, reached = found
    classifier.restore(state)
    examples = len(job.dataset.split("train").labels)
    progress.skip((reached.epoch - 1) * examples + min(reached.step * job.train.batch_size, examples))
    where = "is done" if reached.done else f"goes on at epoch {reached.epoch}, step {reached.step}"
    progress.say(f"{job.label} s{seed} {where}: continued from a checkpoint")
    return reached


def _print_costs(job: Job, results: Sequence[SeedResult], tracker: Tracker, checkpoint_seconds: float) -> None:
    training = sum(result.training_seconds for result in results)
    share = f" ({tracker.seconds / training:.1%} of training)" if training > _LONG_TRAINING_SECONDS else ""
    print(
        f"{job.label}: {training:.1f} s training; MLflow: {tracker.open_seconds:.1f} s import and opening, "
        f"{tracker.seconds:.2f} s tracking{share}, "
        f"{tracker.model_seconds:.2f} s logging {len(results)} models; {checkpoint_seconds:.2f} s writing checkpoints; "
        f"peak memory {environment.peak_memory_bytes() / 2**20:,.0f} MiB",
        flush=True,
    )


def _train_seed(
    job: Job,
    classifier: Classifier,
    feed: Feed,
    run: Run,
    result: SeedResult,
    reached: Progress,
    checkpoint: Checkpoint,
    progress: Steps,
) -> None:
    held_out = job.dataset.split("validation")
    count, seed = len(job.dataset.split("train").labels), result.seed
    while reached.epoch <= job.train.epochs:
        epoch = reached.epoch
        plan = draw_epoch(job.train, examples=count, seed=seed, epoch=epoch - 1)
        trained = _train_epoch(job, classifier, feed, plan, reached, checkpoint, progress)
        feed.split.require_unchanged()
        first_step = (epoch - 1) * plan.steps
        run.log_series({"train/step_loss": trained.loss}, first_step=first_step)
        _require_finite(job, trained.loss, first_step, epoch, seed)
        scores = metrics.score(predict(classifier, held_out.images), held_out.labels)
        held_out.require_unchanged()
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
        reached.next_epoch()
        checkpoint.save(classifier.state(), reached)


def _train_epoch(
    job: Job,
    classifier: Classifier,
    feed: Feed,
    plan: EpochPlan,
    reached: Progress,
    checkpoint: Checkpoint,
    progress: Steps,
) -> EpochResult:
    """What is left of the plan, in pieces short enough to end between two of them: the same bits."""
    wanted = _REPORT_SECONDS if progress.watched else _PIECE_SECONDS
    waited, minutes = feed.waited, job.train.checkpoint_minutes
    try:
        for piece in feed.pieces(plan.segment(reached.step, plan.steps)):
            position = 0
            while position < piece.steps:
                pace = reached.step / reached.seconds if reached.seconds else plan.steps / 20
                part = piece.segment(position, min(position + max(1, round(pace * wanted)), piece.steps))
                with uninterrupted():
                    trained = classifier.train_epoch(part)
                    reached.add(trained, feed.waited - waited)
                    waited = feed.waited
                    position += part.steps
                    progress(len(part.order))
                if minutes is not None and time.monotonic() - checkpoint.written > 60 * minutes:
                    checkpoint.save(classifier.state(), reached)
    except (KeyboardInterrupt, SystemExit):
        checkpoint.save(classifier.state(), reached, wait=True)
        progress.say(f"{job.label}: stands at epoch {reached.epoch}, step {reached.step}; the same command goes on")
        raise
    return EpochResult(np.concatenate(reached.loss), np.concatenate(reached.correct), reached.seconds)


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
    with trained(Job(**select(config, SECTIONS), dataset=Dataset.open(PREPARED), output=output)):
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
