"""The training loop: for seed, for epoch, for piece of the plan; step, score, log, checkpoint."""

import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from ..core.errors import TrainingDivergedError
from ..core.signals import uninterrupted
from ..data.loader import predict
from ..data.plan import EpochPlan, draw_epoch
from ..evaluation import metrics
from ..models.backend import EpochResult
from . import console, result_files, run_logging
from .checkpoint import Checkpoint, Progress
from .context import TrainingContext
from .results import HistoryRow, SeedResult

_REPORT_SECONDS: Final = 0.5  # how often the bar moves while a person watches: one host synchronisation each
_PIECE_SECONDS: Final = 1.0  # how long a signal waits, at most
_FIRST_PIECES: Final = 20  # in how many an epoch is cut whose speed is not known yet


def train(context: TrainingContext) -> list[SeedResult]:
    """Train every seed. Files go to `spec.output`, everything else to MLflow.

    Raises `TrainingDivergedError` where a loss is not finite, `DataChangedError` where the images were written to.
    """
    spec = context.spec
    with run_logging.group_run(context) as group, context.show_progress():
        results = [train_seed(context, seed, group.parent) for seed in spec.seeds]
        result_files.write_results(spec, context.classifier, results)
        group.log(results)
    run_logging.references_of(context, results).write(spec.output / "runs.json")
    console.tell_costs(spec, results, context.tracker.costs, sum(c.seconds for c in context.checkpoints))
    return results


def train_seed(context: TrainingContext, seed: int, parent: str | None) -> SeedResult:
    """Train one seed, or what is left of it; `parent`: the run in MLflow that its own belongs to."""
    spec, checkpoint = context.spec, context.claim(seed)
    position = context.restore_or_initialise(checkpoint, seed)
    result = SeedResult(seed, position.history, position.model)
    if position.done:
        result_files.save_model(spec, context.classifier, seed)
        return result
    with run_logging.seed_run(context, seed, checkpoint, parent) as run:
        with checkpoint.discarded_after_bad_results(), run.system_metrics(spec.tracking.system_metrics_seconds):
            while position.epoch <= spec.train.epochs:
                plan = draw_epoch(spec.train, examples=context.examples, seed=seed, epoch=position.epoch - 1)
                trained = train_epoch(context, plan, position, checkpoint)
                run_logging.log_steps(run, trained, first_step=(position.epoch - 1) * plan.steps)
                require_finite(context, trained, seed, position.epoch)
                rows = score_epoch(context, plan, trained, seed, position.epoch)
                result.history.extend(rows)
                run_logging.log_epoch(run, *rows, learning_rate=float(plan.learning_rate[-1]))
                console.tell_epoch(context.progress, spec, *rows)
                position.begin_next_epoch()
                checkpoint.save(context.classifier.state(), position)
        run_logging.finish_seed(context, run, result)
    position.model, position.done = result.model, True
    checkpoint.save(context.classifier.state(), position)
    return result


def train_epoch(context: TrainingContext, plan: EpochPlan, position: Progress, checkpoint: Checkpoint) -> EpochResult:
    """Train on what is left of the plan, in pieces short enough to end between two of them: the same bits."""
    classifier, loader, minutes = context.classifier, context.loader, context.spec.train.checkpoint_minutes
    waited = loader.waited
    try:
        for piece in pieces(context, plan, position):
            with uninterrupted():
                trained = classifier.train_epoch(piece)
                position.add(trained, loader.waited - waited)
                waited = loader.waited
                context.progress(len(piece.order))
            if minutes is not None and time.monotonic() - checkpoint.written > 60 * minutes:
                checkpoint.save(classifier.state(), position)
    except (KeyboardInterrupt, SystemExit):
        checkpoint.save(classifier.state(), position, wait=True)
        console.tell_interrupted(context.progress, context.spec, position)
        raise
    loader.split.require_unchanged()
    return EpochResult(np.concatenate(position.loss), np.concatenate(position.correct), position.seconds)


def pieces(context: TrainingContext, plan: EpochPlan, position: Progress) -> Iterator[EpochPlan]:
    """Cut what is left of the plan into pieces of about equal time; `position` moves between them."""
    wanted = _REPORT_SECONDS if context.progress.watched else _PIECE_SECONDS
    for chunk in context.loader.pieces(plan.segment(position.step, plan.steps)):
        start = 0
        while start < chunk.steps:
            pace = position.step / position.seconds if position.seconds else plan.steps / _FIRST_PIECES
            stop = min(start + max(1, round(pace * wanted)), chunk.steps)
            yield chunk.segment(start, stop)
            start = stop


def score_epoch(
    context: TrainingContext, plan: EpochPlan, trained: EpochResult, seed: int, epoch: int
) -> tuple[HistoryRow, HistoryRow]:
    """Return the rows of the training split, as it was seen during the epoch, and of the validation split after it."""
    scores = metrics.score(predict(context.classifier, context.validation.images), context.validation.labels)
    context.validation.require_unchanged()
    loss = float(np.average(trained.loss, weights=plan.batch_sizes))
    accuracy = float(trained.correct.sum() / context.examples)
    return (
        HistoryRow(seed, epoch, "train", loss, accuracy, trained.seconds, context.examples),
        HistoryRow(seed, epoch, "validation", scores.loss, scores.accuracy),
    )


def require_finite(context: TrainingContext, trained: EpochResult, seed: int, epoch: int) -> None:
    """Raise `TrainingDivergedError` that names the first step whose loss is not a finite number."""
    bad = np.flatnonzero(~np.isfinite(trained.loss))
    if len(bad):
        step = (epoch - 1) * len(trained.loss) + bad[0]
        raise TrainingDivergedError(
            f"the training loss is {trained.loss[bad[0]]} at step {step} (epoch {epoch}, seed {seed}); "
            f"train.optimizer.learning_rate = {context.spec.train.optimizer.learning_rate} may be too high"
        )
