"""The proof of equality: it passes where both backends are what they should be, and names each planted difference."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from tracing import Tracer, compare, noise, trace

from pipeline.config.schema.model import ModelConfig
from pipeline.core.errors import UserError
from pipeline.data.plan import EpochPlan
from pipeline.equality.levels import Level, reason
from pipeline.models.architecture import Architecture
from pipeline.models.backend import EpochResult, State

# The planted differences are PyTorch's, in this process; TensorFlow has one of its own.
pytestmark = pytest.mark.xdist_group("pytorch")
SHAPE = (7, 6, 3)
NETWORK = {
    "name": "planted",
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "fan_in_uniform",
    "normalise": True,
    "layers": [
        {"type": "conv", "filters": 3, "kernel_size": 3, "bias": False},
        {"type": "batch_norm", "activation": "relu"},
        {"type": "dropout", "rate": 0.2},
        {"type": "flatten"},
        {"type": "dense", "units": 8, "activation": "tanh"},
        {"type": "dense", "units": "classes"},
    ],
}
COMMON = ["train.execution=eager", "train.threads=1", "trace.batch_size=16", "trace.steps=12"]
SETUPS = {
    "adam": [],
    "adamw": ["train/optimizer=adamw", "train.optimizer.weight_decay=0.1"],
    "momentum": ["train/optimizer=momentum", "train/schedule=cosine"],
    "augmented": ["train.augment.pad_and_crop=2", "train.augment.flip=true", "train.augment.cutout=3"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("parity") / "data", SHAPE)


@pytest.fixture(scope="module")
def tensorflow() -> Iterator[Tracer]:
    with Tracer("tensorflow") as tracer:
        yield tracer


@pytest.fixture(scope="module")
def traced(tensorflow: Tracer, data: Path) -> Callable[[str], Path]:
    """The folder of a setup, with TensorFlow's trace in it."""

    @functools.cache
    def folder(setup: str) -> Path:
        output = data.parent / setup
        tensorflow.ask(data, output / "tensorflow", [*COMMON, *SETUPS[setup]], NETWORK)
        tensorflow.answer()
        return output

    return folder


def judged(folder: Path, data: Path, setup: str) -> list[Level]:
    trace("pytorch", data, folder / "pytorch", [*COMMON, *SETUPS[setup]], NETWORK)
    return compare(folder)


@pytest.mark.parametrize("setup", SETUPS)
def test_the_backends_as_they_are_pass_every_level(traced: Callable[[str], Path], data: Path, setup: str) -> None:
    levels = judged(traced(setup), data, setup)
    assert [level.name for level in levels if not level.passed] == []
    assert [level.name for level in levels] == [
        "settings",
        "batches",
        "parameters",
        "outputs",
        "gradients",
        "trajectory float64",
        "trajectory float32",
        "predictions",
    ]
    assert reason(levels) is None
    deviations = {level.name: level.deviation for level in levels}
    assert 0 < deviations["gradients"] < 1e-13
    assert 0 < deviations["trajectory float64"] < 1e-11


def _plant(patch: pytest.MonkeyPatch, **changed: Callable[..., Any]) -> None:
    """Have PyTorch's classifier do this in place of its own methods, each handed the original first."""
    import pipeline.models.pytorch as door

    original = door.PyTorchClassifier
    methods = {name: functools.partialmethod(method, getattr(original, name)) for name, method in changed.items()}
    patch.setattr(door, "PyTorchClassifier", type("Planted", (original,), {**methods}))


def _other(**update: Any) -> Callable[..., None]:
    """A constructor that is given another configuration of training."""

    def planted(self: Any, original: Any, architecture: Any, train: Any) -> None:
        optimizer = train.optimizer.model_copy(update=update.get("optimizer", {}))
        original(self, architecture, train.model_copy(update=update | {"optimizer": optimizer}))

    return planted


def _planned(patch: pytest.MonkeyPatch, change: Callable[[EpochPlan], EpochPlan]) -> None:
    """Whatever is asked of the classifier, it takes another plan."""

    def planted(self: Any, original: Any, plan: EpochPlan) -> Any:
        return original(self, change(plan))

    _plant(patch, iter_batches=planted, train_epoch=planted, probe=planted)


def _epsilon(patch: pytest.MonkeyPatch) -> None:
    _plant(patch, __init__=_other(optimizer={"epsilon": 1e-7}))  # Keras' default


def _momentum_form(patch: pytest.MonkeyPatch) -> None:
    import torch

    class KerasSgd(torch.optim.SGD):
        """v = momentum * v - rate * gradient; weights += v."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            group = self.param_groups[0]
            for parameter in group["params"]:
                buffer = self.state[parameter]["momentum_buffer"]
                buffer.mul_(group["momentum"]).sub_(parameter.grad, alpha=group["lr"])
                parameter.add_(buffer)

    patch.setattr(torch.optim, "SGD", KerasSgd)


def _coupled_decay(patch: pytest.MonkeyPatch) -> None:
    import torch

    patch.setattr(torch.optim, "AdamW", torch.optim.Adam)


def _input_scale(patch: pytest.MonkeyPatch) -> None:
    import pipeline.models.pytorch.classifier as door

    patch.setattr(door, "unit_scale", lambda precision: 1 / 256)


def _flatten_layout(patch: pytest.MonkeyPatch) -> None:
    """Channels first, which is to say that the rows of the kernel behind it are of other inputs."""
    height, width, channels = SHAPE[0] - 2, SHAPE[1] - 2, 3
    rows = np.arange(height * width * channels).reshape(height, width, channels).transpose(2, 0, 1).ravel()

    def moved(state: State, rows: np.ndarray) -> State:
        of_each = [state.weights, *state.slots.values()]
        weights, *slots = ({**one, "dense1/kernel": one["dense1/kernel"][rows]} for one in of_each)
        return replace(state, weights=weights, slots=dict(zip(state.slots, slots, strict=True)))

    _plant(
        patch,
        restore=lambda self, original, state: original(self, moved(state, rows)),
        state=lambda self, original: moved(original(self), np.argsort(rows)),
    )


def _dropped_last_batch(patch: pytest.MonkeyPatch) -> None:
    def whole(self: Any, original: Any, plan: EpochPlan) -> Any:
        return original(self, plan.segment(0, plan.full_steps))

    _plant(patch, iter_batches=whole, train_epoch=whole)


def _initial_weight(patch: pytest.MonkeyPatch) -> None:
    original = Architecture.initial_weights

    def planted(self: Architecture, seed: int) -> dict[str, np.ndarray]:
        weights = original(self, seed)
        weights["dense1/kernel"][3, 2] *= 1 + 1e-9
        return weights

    patch.setattr(Architecture, "initial_weights", planted)


def _biased_variance(patch: pytest.MonkeyPatch) -> None:
    """As Keras keeps it: what each step adds to the running variance is smaller by 1 / N."""
    name, momentum, values = "batch_norm1/variance", 0.1, (SHAPE[0] - 2) * (SHAPE[1] - 2)

    def planted(self: Any, original: Any, plan: EpochPlan) -> Any:
        results = []
        for step in range(plan.steps):
            part, before = plan.segment(step, step + 1), self.state().weights[name]
            results.append(original(self, part))
            after, count = self.state(), len(part.order) * values
            added = after.weights[name] - (1 - momentum) * before
            biased = (1 - momentum) * before + added * (count - 1) / count
            self.restore(replace(after, weights=after.weights | {name: biased.astype(before.dtype)}))
        return EpochResult(*(np.concatenate([getattr(r, what) for r in results]) for what in ("loss", "correct")), 1.0)

    _plant(patch, train_epoch=planted)


def _example_order(patch: pytest.MonkeyPatch) -> None:
    def turned(plan: EpochPlan) -> EpochPlan:
        starts = range(0, len(plan.order), plan.batch_size)
        order = np.concatenate([plan.order[start : start + plan.batch_size][::-1] for start in starts])
        return replace(plan, order=order)

    _planned(patch, turned)


def _mirrored_twice(patch: pytest.MonkeyPatch) -> None:
    def mirrored(plan: EpochPlan) -> EpochPlan:
        return replace(plan, augmentation=plan.augmentation ^ np.array([0, 0, 1, 0, 0]))

    _planned(patch, mirrored)


def _other_deviation(patch: pytest.MonkeyPatch) -> None:
    """Inputs are divided by another deviation than the one that is told."""
    name = "normalise1/variance"

    def scaled(state: State, factor: float) -> State:
        return replace(state, weights=state.weights | {name: (state.weights[name] * factor)})

    _plant(
        patch,
        restore=lambda self, original, state: original(self, scaled(state, 1.01)),
        state=lambda self, original: scaled(original(self), 1 / 1.01),
    )


def _dtype(patch: pytest.MonkeyPatch) -> None:
    _plant(patch, __init__=_other(precision="float32"))


PLANTED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str, str]] = {
    "epsilon": (_epsilon, "adam", "trajectory float64", "after step 1: relative"),
    "momentum form": (_momentum_form, "momentum", "trajectory float64", "relative"),
    "decay coupling": (_coupled_decay, "adamw", "trajectory float64", "after step 1: relative"),
    "input scale": (_input_scale, "adam", "batches", "step 0 (float64): digest"),
    "layout at flatten": (_flatten_layout, "adam", "outputs", "outputs of the first batch: relative"),
    "dropped last batch": (_dropped_last_batch, "adam", "batches", "step 7 (float64): examples 8 and 16"),
    "one initial weight": (_initial_weight, "adam", "parameters", "dense1/kernel: 1 of"),
    "batch-norm variance": (_biased_variance, "adam", "trajectory float64", "batch_norm1/variance after step 1"),
    "example order": (_example_order, "adam", "batches", "step 0 (float64): digest"),
    "augmentation": (_mirrored_twice, "augmented", "batches", "step 0 (float64): digest"),
    "normalisation": (_other_deviation, "adam", "outputs", "outputs of the first batch: relative"),
    "dtype": (_dtype, "adam", "batches", "step 0 (float64): dtype float64 and float32"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_named_at_its_level(
    traced: Callable[[str], Path], data: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    plant, setup, level, words = PLANTED[planted]
    folder = traced(setup)
    plant(monkeypatch)
    levels = judged(folder, data, setup)
    told = reason(levels)
    assert told is not None
    assert told.startswith(f"{level} differ first at ")
    assert words in told
    assert "look at " in told


def test_the_same_evidence_gives_the_same_files(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a trace from DVC's cache, or from a second machine, is the one that parity was shown for."""
    for clock, folder in ((1e9, "one"), (2e9, "other")):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        monkeypatch.setattr("time.localtime", lambda *_, y=clock // 1e9: (2000 + int(y), 9, 9, 1, 46, 40, 6, 252, 0))
        trace("pytorch", data, tmp_path / folder, [*COMMON, *SETUPS["adam"]], NETWORK)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["arrays.npz", "trace.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_settings_that_differ_come_first(traced: Callable[[str], Path], data: Path) -> None:
    folder = traced("adam")
    trace("pytorch", data, folder / "pytorch", [*COMMON, "train.optimizer.epsilon=1e-7"], NETWORK)
    told = reason(compare(folder))
    assert told is not None
    assert told.startswith("settings differ first at train.optimizer.epsilon: 1e-08 and 1e-07")


ACTIVATIONS = st.sampled_from([None, "relu", "silu", "tanh"])
SIZES = st.integers(1, 3)
PADDING = st.sampled_from(["valid", "same"])


@st.composite
def blocks(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to three layers that belong together, on images."""
    conv = {"type": "conv", "filters": draw(SIZES), "kernel_size": draw(SIZES), "padding": draw(PADDING)}
    window = {"size": draw(SIZES), "stride": draw(SIZES), "padding": draw(PADDING)}
    match draw(st.sampled_from(["conv", "norm", "max_pool", "average_pool", "dropout", "residual"])):
        case "conv":
            return [{**conv, "stride": draw(SIZES), "activation": draw(ACTIVATIONS)}]
        case "norm":
            norm = {
                "type": "batch_norm",
                "momentum": draw(st.sampled_from([0.1, 0.5, 1.0])),
                "activation": draw(ACTIVATIONS),
            }
            return [{**conv, "bias": False}, norm]
        case "dropout":
            return [{"type": "dropout", "rate": draw(st.sampled_from([0.0, 0.25, 0.8]))}]
        case "residual":
            inner = {**conv, "padding": "same", "activation": draw(ACTIVATIONS)}
            shortcut = [{"type": "conv", "filters": conv["filters"], "kernel_size": 1}]
            return [{"type": "residual", "layers": [inner], "shortcut": shortcut, "activation": draw(ACTIVATIONS)}]
        case kind:
            return [{"type": kind, **window}]


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """A small declared network."""
    layers = [layer for block in draw(st.lists(blocks(), max_size=4)) for layer in block]
    layers.append({"type": draw(st.sampled_from(["flatten", "global_average_pool"]))})
    if draw(st.booleans()):
        layers.append({"type": "dense", "units": draw(st.integers(1, 6)), "activation": draw(ACTIVATIONS)})
    layers.append({"type": "dense", "units": "classes", "bias": draw(st.booleans())})
    rules = {
        "kernel_initializer": draw(st.sampled_from(["glorot_uniform", "kaiming_uniform"])),
        "bias_initializer": draw(st.sampled_from(["zeros", "fan_in_uniform"])),
    }
    return {"name": "random", **rules, "normalise": draw(st.booleans()), "layers": layers}


TRAININGS = st.tuples(
    st.sampled_from([f"train/optimizer={name}" for name in ("adam", "adamw", "sgd", "momentum", "nesterov")]),
    st.sampled_from([f"train/schedule={name}" for name in ("constant", "cosine", "step")]),
    st.sampled_from(["train.schedule.warmup_steps=0", "train.schedule.warmup_steps=3"]),
    st.sampled_from(["train.clip_norm=null", "train.clip_norm=0.5"]),
    st.sampled_from(["train.label_smoothing=0.0", "train.label_smoothing=0.1"]),
    st.sampled_from(["train.augment.cutout=0", "train.augment.cutout=3"]),
    st.sampled_from(["train.augment.flip=false", "train.augment.flip=true"]),
    st.sampled_from(["train.augment.pad_and_crop=0", "train.augment.pad_and_crop=2"]),
)


@given(model=networks(), training=TRAININGS)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_networks_are_the_same_in_both(
    tensorflow: Tracer, data: Path, model: dict[str, Any], training: tuple[str, ...]
) -> None:
    try:
        Architecture(ModelConfig.model_validate(model), SHAPE, 3)
    except UserError:
        assume(False)
    folder = data.parent / "random"
    overrides = ["train.execution=eager", "train.threads=1", "trace.batch_size=9", "trace.steps=6", *training]
    tensorflow.ask(data, folder / "tensorflow", overrides, model)
    trace("pytorch", data, folder / "pytorch", overrides, model)
    tensorflow.answer()
    levels = compare(folder)
    assert reason([level for level in levels if level.name != "trajectory float32"]) is None
