"""The training loop: for each seed, epoch and piece of the plan: step, score, record, checkpoint."""

import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from ..core.errors import TrainingDivergedError
from ..core.signals import end_if_interrupted, interrupted, uninterrupted
from ..data.loader import predict
from ..data.plan import EpochPlan, draw_epoch
from ..evaluation import metrics
from ..models.backend import EpochResult
from .checkpoint import Checkpoint, Progress
from .context import TrainingContext
from .result_files import save_model, write_results
from .results import HistoryRow, SeedResult

_REPORT_SECONDS: Final = 0.5  # time between updates of the bar on a terminal; each is a host synchronisation
_PIECE_SECONDS: Final = 1.0  # longest delay of a signal


def train(context: TrainingContext) -> list[SeedResult]:
    """Train every seed, write files to `spec.output`, report to the recorder, and return the results by seed.

    Takes over the result of a process that has just trained the same, if this one has waited for it. Raises
    `TrainingDivergedError` if a loss is not finite, `DataChangedError` if the images change on disk.
    """
    taken_over = context.take_over()
    if taken_over is not None:
        return taken_over
    with context.recorder.training(context.images):
        results = [train_seed(context, seed) for seed in context.spec.seeds]
        write_results(context.spec, context.classifier, results)
        context.recorder.results(results)
    context.recorder.finish(results, context.run_links, context.checkpoint_seconds)
    return results


def train_seed(context: TrainingContext, seed: int) -> SeedResult:
    """Train one seed from its checkpoint, or from the beginning if it has none."""
    spec, classifier = context.spec, context.classifier
    checkpoint, position = context.begin(seed)
    result = SeedResult(seed, position.history, position.model)
    if position.done:
        save_model(spec, classifier, seed)
        return result
    with context.recorder.seed(seed, checkpoint.run_link) as recorder, checkpoint.discarded_after_bad_results():
        while position.epoch <= spec.train.epochs:
            with uninterrupted():
                plan = draw_epoch(spec.train, examples=context.examples, seed=seed, epoch=position.epoch - 1)
                trained = train_epoch(context, plan, position, checkpoint)
                first_step = (position.epoch - 1) * plan.steps
                recorder.steps(trained, first_step)
                require_finite(trained, seed, position.epoch, first_step, spec.train.optimizer.learning_rate)
                rows = score_epoch(context, plan, trained, seed, position.epoch)
                result.history.extend(rows)
                recorder.epoch(*rows, float(plan.learning_rate[-1]))
                position.begin_next_epoch()
                checkpoint.save(classifier.state(), position, wait=interrupted())
                if interrupted():
                    context.recorder.interrupted(position)
        recorder.model(result, save_model(spec, classifier, seed))
    position.model, position.done = result.model, True
    checkpoint.save(classifier.state(), position)
    return result


def train_epoch(context: TrainingContext, plan: EpochPlan, position: Progress, checkpoint: Checkpoint) -> EpochResult:
    """Train on the rest of the plan and return the result of the whole epoch; to be called within `uninterrupted`.

    Short pieces of the plan are trained on in turn; the cuts do not change the bits. After a signal, finish the current
    piece, save a checkpoint, and end as the signal says.
    """
    classifier, loader, minutes = context.classifier, context.loader, context.spec.train.checkpoint_minutes
    waited = loader.waited
    for piece in pieces(context, plan, position):
        trained = classifier.train_epoch(piece)
        position.add(trained, loader.waited - waited)
        waited = loader.waited
        context.recorder.advance(len(piece.order))
        if not np.isfinite(trained.loss).all():
            break  # the rest is lost, and a checkpoint would lead here again
        if interrupted():
            checkpoint.save(classifier.state(), position, wait=True)
            context.recorder.interrupted(position)
            end_if_interrupted()
        if minutes is not None and time.monotonic() - checkpoint.written > 60 * minutes:
            checkpoint.save(classifier.state(), position)
    loader.split.require_unchanged()
    return EpochResult(np.concatenate(position.loss), np.concatenate(position.correct), position.seconds)


def pieces(context: TrainingContext, plan: EpochPlan, position: Progress) -> Iterator[EpochPlan]:
    """Cut the rest of the plan into pieces of about equal time, by the speed of the piece before; first one step."""
    piece_seconds = _REPORT_SECONDS if context.recorder.watched else _PIECE_SECONDS
    for chunk in context.loader.pieces(plan.segment(position.step, plan.steps)):
        start = 0
        while start < chunk.steps:
            steps = max(1, int(context.steps_per_second * piece_seconds))
            stop, step, seconds = min(start + steps, chunk.steps), position.step, position.seconds
            yield chunk.segment(start, stop)
            if position.seconds > seconds:
                context.steps_per_second = (position.step - step) / (position.seconds - seconds)
            start = stop


def score_epoch(
    context: TrainingContext, plan: EpochPlan, trained: EpochResult, seed: int, epoch: int
) -> tuple[HistoryRow, HistoryRow]:
    """Return the row of the training split, scored during the epoch, and of the validation split, scored after it."""
    validation, examples = context.validation, context.examples
    outputs = predict(context.classifier, validation.images)
    validation.require_unchanged()
    if not np.isfinite(outputs).all():  # the epoch's last step may lead there: its own loss is of the weights before it
        raise TrainingDivergedError(f"the outputs are no longer finite after epoch {epoch} (seed {seed})")
    scores = metrics.score(outputs, validation.labels)
    loss = float(np.average(trained.loss, weights=plan.batch_sizes))
    accuracy = float(trained.correct.sum() / examples)
    return (
        HistoryRow(seed, epoch, "train", loss, accuracy, trained.seconds, examples),
        HistoryRow(seed, epoch, "validation", scores.loss, scores.accuracy),
    )


def require_finite(trained: EpochResult, seed: int, epoch: int, first_step: int, learning_rate: float) -> None:
    """Raise `TrainingDivergedError` that names the first step whose loss is not a finite number."""
    not_finite = np.flatnonzero(~np.isfinite(trained.loss))
    if len(not_finite):
        first = not_finite[0]
        raise TrainingDivergedError(
            f"the training loss is {trained.loss[first]} at step {first_step + first} (epoch {epoch}, seed {seed}); "
            f"train.optimizer.learning_rate = {learning_rate} may be too high"
        )
