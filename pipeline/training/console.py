"""The lines that training prints on the terminal."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..core.machine import peak_memory_bytes
from ..core.progress import Steps
from ..data.loader import BatchLoader
from ..models.backend import Classifier
from ..models.device import choose
from ..tracking.runs import Costs
from .checkpoint import FOLDER, Progress
from .results import HistoryRow, SeedResult
from .spec import RunSpec

_LONG_TRAINING_SECONDS: Final = 10.0  # a share of a shorter training is noise


def tell_start(spec: RunSpec, classifier: Classifier, loader: BatchLoader, compile_seconds: float) -> None:
    """Print network, data, device and compile time."""
    images, device = loader.split.images, classifier.device
    if reason := choose(spec.train.device, spec.framework).reason:
        print(f"{spec.label}: {reason}", flush=True)
    steps, warm_up = spec.train.epochs * -(-len(images) // spec.train.batch_size), spec.train.schedule.warmup_steps
    if warm_up > steps:
        peak = f"{steps / warm_up:.0%} of train.optimizer.learning_rate"
        print(
            f"{spec.label}: train.schedule.warmup_steps = {warm_up}, and there are {steps}: it ends at {peak}",
            flush=True,
        )
    threads = f"{device.threads} thread{'s' * (device.threads != 1)}"
    if spec.train.world > 1:
        threads = f"{spec.train.world} ranks of {threads}"
    print(
        f"{spec.label}: {spec.model.name}, {spec.architecture.parameter_count:,} parameters, {len(images):,} images, "
        f"{classifier.execution} {spec.train.precision} on {device.name}, {threads}, "
        f"{'compiled' if classifier.execution == 'compiled' else 'warmed up'} in {compile_seconds:.1f} s"
        + (f"; {images.nbytes / 2**20:,.0f} MiB of images streamed from disk" if loader.streamed else ""),
        flush=True,
    )


def tell_left_over(root: Path, size: int) -> None:
    """Print the size of the checkpoints of other trainings, in bytes, unless it is less than 1 MiB."""
    if size >= 2**20:
        print(f"{root / FOLDER}: {size / 2**20:,.0f} MiB of interrupted or running trainings", flush=True)


def tell_missing_code(spec: RunSpec, missing: str) -> None:
    """Print what of the code is not kept with the run, unless that is empty."""
    if missing:
        print(f"{spec.label}: {missing}", flush=True)


def tell_continued(progress: Steps, spec: RunSpec, seed: int, position: Progress) -> None:
    """Print the position from which an interrupted training continues."""
    where = "is done" if position.done else f"goes on at epoch {position.epoch}, step {position.step}"
    progress.say(f"{spec.label} s{seed} {where}: continued from a checkpoint")


def tell_other_worlds(spec: RunSpec, seed: int, worlds: Sequence[int]) -> None:
    """Say that checkpoints of other numbers of ranks are not continued from."""
    if worlds:
        listed = " or ".join(f"train.world={world}" for world in worlds)
        print(
            f"{spec.label} s{seed}: begins anew; a checkpoint of {listed} exists, and sums over {spec.train.world} "
            f"rank{'s' * (spec.train.world > 1)} would give its next steps other bits. {listed} continues it",
            flush=True,
        )


def tell_taken_over(spec: RunSpec) -> None:
    """Print that another process has trained the same."""
    print(f"{spec.label}: the result of that process is taken over, with its MLflow runs", flush=True)


def tell_epoch(progress: Steps, spec: RunSpec, train: HistoryRow, validation: HistoryRow) -> None:
    """Print the scores and the training speed of an epoch."""
    assert train.seconds
    assert train.examples
    progress.say(
        f"{spec.label} s{train.seed} epoch {train.epoch}/{spec.train.epochs}: "
        f"loss {train.loss:.4f} accuracy {train.accuracy:.4f}, "
        f"validation loss {validation.loss:.4f} accuracy {validation.accuracy:.4f}, "
        f"{train.examples / train.seconds:,.0f} images/s"
    )


def tell_unlearned(progress: Steps, spec: RunSpec, results: Sequence[SeedResult]) -> None:
    """Print which seeds end with a validation loss above that of guessing, the logarithm of the number of classes."""
    guessing = math.log(len(spec.dataset.classes))
    for result in results:
        if (loss := result.last("validation", "loss")) > guessing:
            progress.say(
                f"{spec.label} s{result.seed}: validation loss {loss:.4g} is above the {guessing:.2f} of guessing; "
                "train.optimizer.learning_rate may be too high, or the training too short"
            )


def tell_interrupted(progress: Steps, spec: RunSpec, position: Progress) -> None:
    """Print the position of an interrupted training, and how to continue it."""
    stands = f"stands at epoch {position.epoch}, step {position.step}"
    progress.say(f"{spec.label}: {stands}; run the same command to continue")


def tell_costs(spec: RunSpec, results: Sequence[SeedResult], costs: Costs, checkpoint_seconds: float) -> None:
    """Print the seconds of training, tracking and checkpoints, and the peak memory."""
    training = sum(result.training_seconds for result in results)
    share = f" ({costs.seconds / training:.1%} of training)" if training > _LONG_TRAINING_SECONDS else ""
    print(
        f"{spec.label}: {training:.1f} s training; MLflow: {costs.open_seconds:.1f} s import and opening, "
        f"{costs.seconds:.2f} s tracking{share}, {costs.model_seconds:.2f} s logging {len(results)} models; "
        f"{checkpoint_seconds:.2f} s writing checkpoints; peak memory {peak_memory_bytes() / 2**20:,.0f} MiB",
        flush=True,
    )
