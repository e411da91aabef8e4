"""The loop alone: NumPy as the framework, and a recorder in memory. No MLflow, no process of its own."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy_backend import NUMPY, NumPyClassifier
from tracing import noise

from pipeline.config.compose import compose
from pipeline.config.schema.model import ModelConfig
from pipeline.core import frameworks, signals
from pipeline.core.errors import TrainingDivergedError
from pipeline.data.dataset import Dataset
from pipeline.data.loader import BatchLoader
from pipeline.data.plan import EpochPlan
from pipeline.models.backend import EpochResult
from pipeline.training import console
from pipeline.training.checkpoint import Checkpoint, Progress, locked
from pipeline.training.context import TrainingContext
from pipeline.training.loop import train
from pipeline.training.results import HistoryRow, SeedResult
from pipeline.training.spec import RunSpec

NETWORK = {
    "name": "tiny",
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "layers": [{"type": "flatten"}, {"type": "dense", "units": "classes"}],
}


class InMemory:
    """See `recorder.Recorder`: a list of what was told, in order."""

    watched = False

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.images = 0

    @contextmanager
    def training(self, images: int) -> Iterator[None]:
        """See `Recorder`."""
        self.told.append(("training", images))
        yield
        self.told.append("end of training")

    @contextmanager
    def seed(self, seed: int, run_link: Path) -> Iterator["InMemory"]:
        """See `Recorder`."""
        self.told.append(("seed", seed))
        yield self
        self.told.append(("end of seed", seed))

    def steps(self, trained: EpochResult, first_step: int) -> None:
        """See `SeedRecorder`."""
        self.told.append(("steps", first_step, len(trained.loss)))

    def epoch(self, train: HistoryRow, validation: HistoryRow, learning_rate: float) -> None:
        """See `SeedRecorder`."""
        self.told.append(("epoch", train.epoch, learning_rate))

    def model(self, result: SeedResult, directory: Path) -> None:
        """See `SeedRecorder`."""
        assert (directory / "weights.safetensors").exists()
        self.told.append("model")
        result.model = f"model of {result.seed}"

    def advance(self, images: int) -> None:
        """See `Recorder`."""
        self.images += images

    def continued(self, seed: int, position: Progress, images: int) -> None:
        """See `Recorder`."""
        self.told.append(("continued", seed, position.epoch, position.step, position.done, images))

    def interrupted(self, position: Progress) -> None:
        """See `Recorder`."""
        self.told.append(("interrupted", position.epoch, position.step))

    def results(self, results: Sequence[SeedResult]) -> None:
        """See `Recorder`."""
        self.told.append(("results", [result.model for result in results]))

    def finish(self, results: Sequence[SeedResult], run_links: Sequence[Path], checkpoint_seconds: float) -> None:
        """See `Recorder`."""
        self.told.append("finish")

    def release(self, run_link: Path) -> None:
        """See `Recorder`."""
        self.told.append("release")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    monkeypatch.setitem(frameworks.FRAMEWORKS, "numpy", NUMPY)
    settings = ["framework=numpy", "seeds=[3,5]", "train.epochs=2", "train.batch_size=32", "train.precision=float64"]
    settings += ["train/schedule=constant", "train.optimizer.learning_rate=1e-3"]
    config = compose(settings).model_copy(update={"model": ModelConfig.model_validate(NETWORK)})
    return RunSpec.of(config, dataset=Dataset.open(noise(tmp_path / "data", (4, 3, 1))), output=tmp_path)


@contextmanager
def opened(spec: RunSpec) -> Iterator[tuple[TrainingContext, InMemory]]:
    """What `open_training` opens, with a recorder in memory."""
    classifier, recorder, root = NumPyClassifier(spec.architecture, spec.train), InMemory(), spec.output
    loader = BatchLoader(classifier, spec.dataset.split("train"), 1 << 30, spec.train.batch_size)
    with ExitStack() as locks:
        whole = locks.enter_context(locked(root, spec, classifier, None))
        seeds = {seed: locks.enter_context(locked(root, spec, classifier, seed)) for seed in spec.seeds}
        validation = spec.dataset.split("validation")
        yield TrainingContext(spec, classifier, loader, validation, recorder, whole, seeds), recorder


def test_a_training_is_told_from_its_beginning_to_its_end(spec: RunSpec) -> None:
    count = spec.dataset.facts.examples["train"]
    steps = -(-count // 32)
    with opened(spec) as (context, recorder):
        results = train(context)
        context.complete()
    epochs = [told for epoch in (1, 2) for told in (("steps", (epoch - 1) * steps, steps), ("epoch", epoch, 1e-3))]
    seeds = [[("seed", seed), *epochs, "model", ("end of seed", seed)] for seed in (3, 5)]
    results_told = ("results", ["model of 3", "model of 5"])
    ends = [results_told, "end of training", "finish", "release", "release", "release"]
    assert recorder.told == [("training", 4 * count), *seeds[0], *seeds[1], *ends]
    assert recorder.images == 4 * count
    assert [len(result.history) for result in results] == [4, 4]
    assert not list((spec.output / "checkpoints").glob("*/state.safetensors"))


def weights(spec: RunSpec) -> list[bytes]:
    return [(spec.output / f"models/seed_{seed}/weights.safetensors").read_bytes() for seed in (3, 5)]


def test_a_training_that_is_interrupted_anywhere_goes_on_to_the_same_bits(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(spec) as (context, _):
        train(context)
        context.complete()
    expected, original, left = weights(spec), NumPyClassifier.train_epoch, 0

    def interrupted(self: NumPyClassifier, plan: EpochPlan) -> EpochResult:
        nonlocal left
        left -= 1
        if left < 0:
            signal.raise_signal(signal.SIGINT)
        return original(self, plan)

    monkeypatch.setattr(NumPyClassifier, "train_epoch", interrupted)
    monkeypatch.setattr(signals, "_REPEAT_SECONDS", 0)
    told: list[Any] = []
    for attempt in range(40):
        left = attempt % 3
        with opened(spec) as (context, recorder), signals.keeping_handlers():
            signals.end_on_signals()
            try:
                train(context)
            except KeyboardInterrupt:
                told += [entry for entry in recorder.told if entry[0] in ("continued", "interrupted")]
                continue
            context.complete()
        break
    else:
        pytest.fail("it never came to its end")
    assert weights(spec) == expected
    assert sum(entry[0] == "interrupted" for entry in told) >= 4
    assert any(entry[0] == "continued" and entry[3] > 0 for entry in told)  # within an epoch


def test_a_loss_that_is_not_finite_ends_it_and_leaves_no_checkpoint(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = NumPyClassifier.train_epoch

    def diverging(self: NumPyClassifier, plan: EpochPlan) -> EpochResult:
        result = original(self, plan)
        return EpochResult(np.where(np.arange(plan.steps) == 0, np.nan, result.loss), result.correct, result.seconds)

    monkeypatch.setattr(NumPyClassifier, "train_epoch", diverging)
    saved: list[Progress] = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, state, progress, **_: saved.append(progress))
    with (
        opened(spec) as (context, recorder),
        pytest.raises(TrainingDivergedError, match=r"nan at step 0 \(epoch 1, seed 3\)"),
    ):
        train(context)
    assert [told[0] for told in recorder.told] == ["training", "seed", "steps"]
    assert saved == []


def test_a_piece_takes_a_second_at_most_from_the_first_step_on(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal waits for the piece that is trained on: 50 steps an epoch, 0.4 s each, so two steps a second."""
    spec = replace(spec, train=spec.train.model_copy(update={"batch_size": 3}), seeds=[3])
    lengths: list[int] = []

    def slow(self: NumPyClassifier, plan: EpochPlan) -> EpochResult:
        lengths.append(plan.steps)
        zeros = np.zeros(plan.steps)
        return EpochResult(zeros, zeros.astype(np.int64), 0.4 * plan.steps)

    monkeypatch.setattr(NumPyClassifier, "train_epoch", slow)
    with opened(spec) as (context, _):
        train(context)
    assert lengths[0] == 1
    assert max(lengths) == 2
    assert sum(lengths) == 2 * -(-spec.dataset.facts.examples["train"] // 3)


@pytest.mark.parametrize(("bad_piece", "epoch"), [(3, 1), (43, 2)])
def test_training_stops_at_the_piece_whose_loss_is_bad(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, bad_piece: int, epoch: int
) -> None:
    """One step a piece; the step that is named counts from the beginning of the training."""
    spec = replace(spec, train=spec.train.model_copy(update={"batch_size": 3}))
    original, pieces = NumPyClassifier.train_epoch, 0

    def diverging(self: NumPyClassifier, plan: EpochPlan) -> EpochResult:
        nonlocal pieces
        pieces += 1
        result = original(self, plan)
        loss = np.where(pieces == bad_piece, np.inf, result.loss)
        return EpochResult(loss, result.correct, float(plan.steps))  # as if each step took a second

    monkeypatch.setattr(NumPyClassifier, "train_epoch", diverging)
    first = (epoch - 1) * -(-spec.dataset.facts.examples["train"] // 3)
    bad = pytest.raises(TrainingDivergedError, match=rf"inf at step {bad_piece - 1} \(epoch {epoch}, seed 3\)")
    with opened(spec) as (context, recorder), bad:
        train(context)
    assert pieces == bad_piece
    assert recorder.told[-1] == ("steps", first, bad_piece - first)
    assert not list((spec.output / "checkpoints").glob("*/state.safetensors"))


def test_a_last_step_that_spoils_the_weights_is_no_result(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is of the weights before it; the validation split tells."""

    def spoiled(self: NumPyClassifier, images: np.ndarray) -> np.ndarray:
        return np.full((len(images), self.architecture.classes), np.nan)

    monkeypatch.setattr(NumPyClassifier, "predict", spoiled)
    bad = pytest.raises(TrainingDivergedError, match=r"the outputs are no longer finite after epoch 1 \(seed 3\)")
    with opened(spec) as (context, _), bad:
        train(context)
    assert not list((spec.output / "checkpoints").glob("*/state.safetensors"))
    assert not (spec.output / "summary.json").exists()


def test_a_seed_that_ends_worse_than_guessing_is_named() -> None:
    spec: Any = SimpleNamespace(label="pytorch", dataset=SimpleNamespace(classes=list("0123456789")))
    results: Any = [SimpleNamespace(seed=seed, last=lambda *_, loss=loss: loss) for seed, loss in ((0, 2.2), (1, 7e8))]
    said: list[str] = []
    progress: Any = SimpleNamespace(say=said.append)
    console.tell_unlearned(progress, spec, results)
    (line,) = said
    assert line.startswith("pytorch s1: validation loss 7e+08 is above the 2.30 of guessing; train.optimizer.")
