"""What every door promises, whichever framework is behind it, judged against a reference in NumPy alone."""

import functools
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from project_copy import ROOT, clean_environment
from reference import assert_same_bits
from safetensors.numpy import load_file, save_file

from pipeline.config.compose import compose
from pipeline.config.schema.model import ModelConfig
from pipeline.config.schema.train import TrainConfig
from pipeline.core import frameworks
from pipeline.core.errors import UserError
from pipeline.data.plan import EpochPlan
from pipeline.models import backend
from pipeline.models.architecture import Architecture
from pipeline.models.backend import Classifier, State
from pipeline.sweeps import workers

Weights = Mapping[str, np.ndarray]

FLATTEN = {"type": "flatten"}
CONV = {"type": "conv", "filters": 2, "kernel_size": 3}
LOGITS = {"type": "dense", "units": "classes"}
NETWORKS: dict[str, list[dict[str, Any]]] = {
    "conv and dense": [{**CONV, "activation": "relu"}, FLATTEN, {**LOGITS, "units": 5, "activation": "relu"}, LOGITS],
    "two convs": [{**CONV, "activation": "relu"}, {**CONV, "filters": 3, "kernel_size": 2}, FLATTEN, LOGITS],
    "dense only": [FLATTEN, LOGITS],
    "softmax output": [CONV, FLATTEN, {**LOGITS, "activation": "softmax"}],
}
NORM = {"type": "batch_norm", "momentum": 0.3, "epsilon": 1e-2}
SAME = {**CONV, "padding": "same"}
LAYERS: dict[str, list[dict[str, Any]]] = {
    "same padding": [{**SAME, "kernel_size": 4, "activation": "tanh"}, FLATTEN, LOGITS],
    "silu": [{**CONV, "activation": "silu"}, FLATTEN, LOGITS],
    "stride": [{**CONV, "stride": 2, "bias": False}, FLATTEN, LOGITS],
    "same padding and stride": [{**SAME, "stride": 2}, {**SAME, "kernel_size": 2, "stride": 3}, FLATTEN, LOGITS],
    "max pool": [CONV, {"type": "max_pool", "size": 2}, FLATTEN, LOGITS],
    "overlapping max pool, same": [
        CONV,
        {"type": "max_pool", "size": 3, "stride": 2, "padding": "same"},
        FLATTEN,
        LOGITS,
    ],
    "average pool": [CONV, {"type": "average_pool", "size": 3, "stride": 1}, FLATTEN, LOGITS],
    "average pool, same": [CONV, {"type": "average_pool", "size": 3, "stride": 2, "padding": "same"}, FLATTEN, LOGITS],
    "global average pool": [CONV, {"type": "global_average_pool"}, LOGITS],
    "batch norm": [{**CONV, "bias": False}, {**NORM, "activation": "relu"}, FLATTEN, LOGITS],
    "batch norm after dense": [FLATTEN, {"type": "dense", "units": 4, "bias": False}, NORM, {**LOGITS, "bias": False}],
    "dropout": [CONV, {"type": "dropout", "rate": 0.3}, FLATTEN, {"type": "dropout", "rate": 0.6}, LOGITS],
    "residual": [
        {
            "type": "residual",
            "layers": [{**SAME, "filters": 3}, {**SAME, "filters": 3}],
            "activation": "relu",
            "shortcut": [{**CONV, "filters": 3, "kernel_size": 1, "bias": False}, NORM],
        },
        {"type": "residual", "layers": [{**SAME, "filters": 3, "activation": "relu"}]},
        FLATTEN,
        LOGITS,
    ],
}
LAYERS["hidden relu"] = [
    {**CONV, "activation": "relu"},
    FLATTEN,
    {"type": "dense", "units": 4, "activation": "relu"},
    LOGITS,
]
LAYERS["normalise"] = [{**CONV, "activation": "relu"}, FLATTEN, LOGITS]
LAYERS["everything"] = [
    {**SAME, "bias": False},
    {**NORM, "activation": "relu"},
    {"type": "max_pool", "size": 2},
    *LAYERS["residual"][:2],
    {"type": "average_pool", "size": 2, "padding": "same"},
    {"type": "dropout", "rate": 0.3},
    {"type": "global_average_pool"},
    LOGITS,
]
NETWORKS |= LAYERS
IMAGES = {"grey": ((8, 7, 1), 3), "colour": ((6, 5, 3), 4)}  # neither is square: height and width are told apart
MOMENTS = {"grey": ((0.4,), (0.3,)), "colour": ((0.4, 0.5, 0.1), (0.3, 0.2, 0.0))}
EXAMPLES, BATCH_SIZE, STEPS = 50, 16, 4  # batches of 16, 16, 16, 2
EPSILON = 1e-2  # large enough for its place in the formula to matter
OTHER = {"tensorflow": "pytorch", "pytorch": "tensorflow"}

every_network = pytest.mark.parametrize("network", sorted(NETWORKS.keys() - LAYERS.keys()))
every_layer = pytest.mark.parametrize("network", LAYERS)
every_image = pytest.mark.parametrize("kind", IMAGES)
both_precisions = pytest.mark.parametrize("precision", ["float32", "float64"])


def design(network: str = "conv and dense", kind: str = "grey") -> Architecture:
    rules = {"kernel_initializer": "glorot_uniform", "bias_initializer": "fan_in_uniform"}
    layers = {"layers": NETWORKS[network], "normalise": network == "normalise"}
    return Architecture(ModelConfig.model_validate({"name": "test", **rules, **layers}), *IMAGES[kind], *MOMENTS[kind])


def examples(kind: str = "grey", count: int = EXAMPLES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    shape, classes = IMAGES[kind]
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *shape), np.uint8), generator.integers(0, classes, count)


def epoch(number: int = 0, learning_rate: float = 0.02) -> EpochPlan:
    """Every step has a learning rate of its own."""
    order = np.random.default_rng(number).permutation(EXAMPLES)
    keys = np.random.default_rng([1, number]).integers(0, 2**32, STEPS)
    return EpochPlan(order, BATCH_SIZE, learning_rate * np.array([1.0, 0.5, 2.0, 0.8]), keys)


ADAM = {"name": "adam", "learning_rate": 0.02, "beta_1": 0.9, "beta_2": 0.99, "epsilon": EPSILON}
SGD = {"name": "sgd", "learning_rate": 0.02, "momentum": 0.0, "nesterov": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": ADAM},
    "adamw": {"optimizer": {**ADAM, "name": "adamw", "weight_decay": 0.3}},
    "sgd": {"optimizer": SGD},
    "momentum": {"optimizer": {**SGD, "momentum": 0.9}},
    "nesterov": {"optimizer": {**SGD, "momentum": 0.9, "nesterov": True}},
    "label smoothing": {"optimizer": ADAM, "label_smoothing": 0.2},
    "clipping": {"optimizer": {**SGD, "momentum": 0.9}, "clip_norm": 0.3},
    "clipping that never acts": {"optimizer": {**SGD, "momentum": 0.9}, "clip_norm": 1e6},
}


def settings(variant: str = "adam", precision: str = "float64", execution: str = "auto") -> TrainConfig:
    run = {"epochs": 1, "batch_size": BATCH_SIZE, "deterministic": True, "threads": 1}
    run |= {"label_smoothing": 0.0, "clip_norm": None, "schedule": {"name": "constant", "warmup_steps": 0}}
    return TrainConfig.model_validate({**run, "precision": precision, "execution": execution, **VARIANTS[variant]})


def create(
    framework: str,
    network: str = "conv and dense",
    kind: str = "grey",
    precision: str = "float32",
    execution: str = "auto",
    variant: str = "adam",
) -> Classifier:
    """A new classifier with its examples, its weights drawn from seed 0."""
    train = settings(variant, precision, execution)
    classifier = backend.create(framework, design(network, kind), train)
    classifier.load_training_data(*examples(kind))
    backend.initialise(classifier, seed=0)
    return classifier


created = functools.cache(create)


def open_door(framework: str, *arguments: str, **settings: str) -> Classifier:
    """As `create`, but a classifier that was made before is started anew instead of compiled anew."""
    classifier = created(framework, *arguments, **settings)
    backend.initialise(classifier, seed=0)
    return classifier


@functools.cache
def reference_epoch(network: str, kind: str, variant: str = "adam") -> tuple[np.ndarray, np.ndarray, State]:
    return reference.epoch(design(network, kind), settings(variant), *examples(kind), epoch())


def reference_outputs(architecture: Architecture, weights: Weights, images: np.ndarray) -> np.ndarray:
    return reference.outputs(architecture, weights, images)[0]


def before_the_first_step(drawn: Weights, dtype: str, architecture: Architecture | None = None) -> State:
    weights = {name: value.astype(dtype) for name, value in drawn.items()}
    zeros = {p.name: np.zeros(p.shape, dtype) for p in (architecture or design()).parameters}
    return State(weights, {"momentum": zeros, "velocity": zeros}, 0)


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value expected."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def largest_deviation(found: Weights, expected: Weights) -> float:
    assert list(found) == list(expected)
    return max(deviation(found[name], expected[name]) for name in expected)


def require_compiler(framework: str, execution: str) -> None:
    compilers = ("g++", "clang++", "c++")
    if framework == "pytorch" and execution == "compiled" and not any(map(shutil.which, compilers)):
        pytest.skip(f"torch.compile needs a C++ compiler, and none of {', '.join(compilers)} is on PATH")


# Weights


@every_network
@every_image
def test_parameters_have_the_names_and_shapes_of_the_architecture(framework: str, network: str, kind: str) -> None:
    weights = open_door(framework, network, kind).state().weights
    wanted = [(array.name, array.shape) for array in design(network, kind).arrays]
    assert [(name, value.shape) for name, value in weights.items()] == wanted


@both_precisions
def test_training_starts_from_the_weights_that_were_drawn(framework: str, precision: str) -> None:
    classifier = open_door(framework, precision=precision)
    drawn = classifier.architecture.initial_weights(0)
    assert_same_bits(classifier.state(), before_the_first_step(drawn, precision))


def test_another_seed_starts_from_other_weights_and_before_the_first_step(framework: str) -> None:
    classifier = open_door(framework)
    classifier.train_epoch(epoch())
    backend.initialise(classifier, seed=1)
    drawn = classifier.architecture.initial_weights(1)
    assert_same_bits(classifier.state(), before_the_first_step(drawn, "float32"))


@both_precisions
def test_weights_that_are_set_are_read_back_to_the_last_bit(framework: str, precision: str) -> None:
    classifier = open_door(framework, "two convs", "colour", precision=precision)
    generator = np.random.default_rng(3)
    new = {p.name: generator.standard_normal(p.shape).astype(precision) for p in classifier.architecture.parameters}
    classifier.set_weights(new)
    found = classifier.state().weights
    assert all(found[name].tobytes() == value.tobytes() for name, value in new.items())
    assert all(value.dtype == precision for value in found.values())


def test_a_state_is_a_copy_that_training_does_not_touch(framework: str) -> None:
    classifier = open_door(framework)
    state = classifier.state()
    classifier.train_epoch(epoch())
    drawn = classifier.architecture.initial_weights(0)
    assert_same_bits(state, before_the_first_step(drawn, "float32"))


# Outputs


@every_network
@every_image
def test_outputs_are_those_of_the_reference(framework: str, network: str, kind: str) -> None:
    classifier = open_door(framework, network, kind, precision="float64")
    images, _ = examples(kind)
    outputs = classifier.predict(images)
    assert outputs.dtype == np.float64
    expected = reference_outputs(classifier.architecture, classifier.state().weights, images)
    assert deviation(outputs, expected) <= 1e-10


@pytest.mark.parametrize("count", [1, 512, 513, 1025])
def test_any_number_of_examples_can_be_predicted(framework: str, count: int) -> None:
    classifier = open_door(framework)
    images, _ = examples(count=count)
    outputs = classifier.predict(images)
    assert outputs.dtype == np.float32
    expected = reference_outputs(classifier.architecture, classifier.state().weights, images)
    assert outputs.shape == (count, 3)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)


def test_large_images_are_predicted_within_bounded_memory(framework: str) -> None:
    layers = [{"type": "conv", "filters": 64, "kernel_size": 3}, {"type": "global_average_pool"}]
    config = compose(["train.threads=1"])
    model = config.model.model_validate(
        config.model.model_dump() | {"layers": [*layers, {"type": "dense", "units": "classes"}]}
    )
    classifier = backend.create(framework, Architecture(model, (224, 224, 3), 3), config.train)
    backend.initialise(classifier, 0)
    images = np.random.default_rng(0).integers(0, 256, (96, 224, 224, 3), np.uint8)
    classifier.predict(images[:1])
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts anew
    outputs = classifier.predict(images)
    assert np.array_equal(outputs[:8], classifier.predict(images[:8]))
    assert resident_bytes("VmHWM") - before < 600 << 20  # all 96 at once: 1.2 GB for each copy of the layer's output


def resident_bytes(line: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = [text.split()[1] for text in lines if text.startswith(line)]
    return int(found[0]) * 1024


def test_read_only_memory_maps_serve_as_well_as_arrays(framework: str, tmp_path: Path) -> None:
    classifier = open_door(framework)
    images, labels = examples()
    outputs = classifier.predict(images)
    losses, trained = classifier.train_epoch(epoch()).loss, classifier.state()
    mapped = []
    for name, array in (("images", images), ("labels", labels)):
        np.save(tmp_path / f"{name}.npy", array)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    backend.initialise(classifier, seed=0)
    classifier.load_training_data(mapped[0], mapped[1])
    assert np.array_equal(classifier.predict(mapped[0]), outputs)
    assert np.array_equal(classifier.train_epoch(epoch()).loss, losses)
    assert_same_bits(classifier.state(), trained)


def test_predicting_changes_nothing_in_training(framework: str) -> None:
    classifier = open_door(framework)
    classifier.train_epoch(epoch())
    before = classifier.state()
    classifier.predict(examples()[0])
    assert_same_bits(classifier.state(), before)


def run_exported(framework: str, network: Any, images: np.ndarray) -> np.ndarray:
    if framework == "tensorflow":
        return np.asarray(network(images))
    import torch

    with torch.no_grad():
        return np.asarray(network(torch.from_numpy(images)).numpy())


@both_precisions
@every_image
def test_the_exported_network_maps_scaled_images_to_the_same_outputs(framework: str, precision: str, kind: str) -> None:
    classifier = open_door(framework, "conv and dense", kind, precision=precision)
    classifier.train_epoch(epoch())
    images, _ = examples(kind, seed=1)
    outputs = run_exported(framework, classifier.export(), images.astype(precision) / np.array(255, precision))
    assert outputs.dtype == precision
    limit = {"float32": 1e-5, "float64": 1e-12}[precision]
    assert deviation(outputs, classifier.predict(images)) <= limit


# Training


@every_network
@every_image
def test_an_epoch_of_adam_is_that_of_the_reference(framework: str, network: str, kind: str) -> None:
    classifier = open_door(framework, network, kind, precision="float64")
    result = classifier.train_epoch(epoch())
    losses, corrects, expected = reference_epoch(network, kind)
    assert deviation(result.loss[:1], losses[:1]) <= 1e-10  # before any update
    assert deviation(result.loss, losses) <= 1e-9
    assert result.correct.tolist() == corrects.tolist()
    state = classifier.state()
    assert state.step == expected.step
    assert largest_deviation(state.weights, expected.weights) <= 1e-9
    for slot in ("momentum", "velocity"):
        assert largest_deviation(state.slots[slot], expected.slots[slot]) <= 1e-9


@every_layer
def test_every_layer_trains_and_predicts_as_the_reference(framework: str, network: str) -> None:
    classifier = open_door(framework, network, precision="float64", execution="eager")
    probe = classifier.probe(epoch())
    (images, labels), plan = examples(), epoch()
    rows, drawn = plan.order[:BATCH_SIZE], classifier.architecture.initial_weights(0)
    slopes = reference.gradients(classifier.architecture, drawn, images[rows], labels[rows], int(plan.dropout_keys[0]))
    assert largest_deviation(probe.gradients, slopes) <= 1e-10
    assert_same_bits(classifier.state(), before_the_first_step(drawn, "float64", classifier.architecture))
    result = classifier.train_epoch(plan)
    losses, corrects, expected = reference_epoch(network, "grey")
    assert probe.loss == pytest.approx(losses[0], rel=1e-12)
    assert deviation(result.loss, losses) <= 1e-9
    assert result.correct.tolist() == corrects.tolist()
    state = classifier.state()
    assert largest_deviation(state.weights, expected.weights) <= 1e-9
    assert largest_deviation(state.slots["velocity"], expected.slots["velocity"]) <= 1e-9
    outputs = reference_outputs(classifier.architecture, state.weights, images)
    assert deviation(classifier.predict(images), outputs) <= 1e-10
    exported = run_exported(framework, classifier.export(), images / 255)
    assert deviation(exported, outputs) <= 1e-7  # Keras rounds the epsilon of batch norm to float32


@pytest.mark.parametrize("execution", ["eager", "graph", "compiled"])
def test_every_layer_together_is_compiled_to_what_it_is_eagerly(framework: str, execution: str) -> None:
    if execution not in frameworks.find(framework).executions:
        message = f"train.execution = '{execution}': PyTorch has none on the CPU; allowed: auto, eager, compiled"
        with pytest.raises(UserError, match=message):
            create(framework, "everything", execution=execution)
        return
    require_compiler(framework, execution)
    classifier = create(framework, "everything", precision="float64", execution=execution, variant="momentum")
    losses, corrects, expected = reference_epoch("everything", "grey", "momentum")
    assert classifier.execution == execution
    result = classifier.train_epoch(epoch())
    assert deviation(result.loss, losses) <= 1e-9
    assert result.correct.tolist() == corrects.tolist()
    assert largest_deviation(classifier.state().weights, expected.weights) <= 1e-9
    outputs = reference_outputs(classifier.architecture, classifier.state().weights, examples()[0])
    assert deviation(classifier.predict(examples()[0]), outputs) <= 1e-10


@pytest.mark.parametrize("execution", ["eager", "graph", "compiled"])
@pytest.mark.parametrize("network", ["max pool", "hidden relu"])
def test_a_network_that_has_diverged_says_so(framework: str, network: str, execution: str) -> None:
    """TensorFlow's max pooling takes NaN for the smallest number, and its fused convolutions and products for zero."""
    if execution not in frameworks.find(framework).executions:
        return
    require_compiler(framework, execution)
    classifier = create(framework, network, precision="float32", execution=execution)
    state = classifier.state()
    kernel = next(name for name in state.weights if name.endswith("kernel"))
    state.weights[kernel][0, 0, 0, 0] = np.nan
    classifier.restore(state)
    assert np.isnan(classifier.train_epoch(epoch()).loss[0])
    classifier.restore(state)
    assert np.isnan(classifier.predict(examples()[0])).all()


def test_the_customary_execution_is_the_faster_one_of_the_network(framework: str) -> None:
    """XLA is slower at convolutions, and faster at all else; PyTorch's compiler takes longer than most trainings."""
    expected = {"tensorflow": ("graph", "compiled"), "pytorch": ("eager", "eager")}[framework]
    assert tuple(create(framework, network).execution for network in ("two convs", "dense only")) == expected


@pytest.mark.xdist_group("tensorflow")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fused_update_of_a_large_network_is_that_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    import pipeline.models.tensorflow.classifier as door

    monkeypatch.setattr(door, "_FUSED_FROM", 1)
    classifier = create("tensorflow", "batch norm", precision="float64", execution="graph", variant=variant)
    losses, _, expected = reference_epoch("batch norm", "grey", variant)
    assert deviation(classifier.train_epoch(epoch()).loss, losses) <= 1e-9
    assert largest_deviation(classifier.state().weights, expected.weights) <= 1e-9


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_optimizer_is_that_of_the_reference(framework: str, variant: str) -> None:
    classifier = create(framework, "batch norm", precision="float64", execution="eager", variant=variant)
    losses, _, expected = reference_epoch("batch norm", "grey", variant)
    assert deviation(classifier.train_epoch(epoch()).loss, losses) <= 1e-9
    state = classifier.state()
    assert largest_deviation(state.weights, expected.weights) <= 1e-9
    assert state.slots.keys() == expected.slots.keys()
    for slot, values in expected.slots.items():
        assert largest_deviation(state.slots[slot], values) <= 1e-9


def test_batches_are_seen_as_scaled_images_in_the_order_of_the_plan(framework: str) -> None:
    classifier, plan, (images, labels) = open_door(framework), epoch(), examples()
    for i, (x, y) in enumerate(classifier.iter_batches(plan)):
        rows = plan.order[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
        assert np.array_equal(x, images[rows].astype(np.float32) * (np.float32(1) / np.float32(255)))
        assert np.array_equal(y, labels[rows])
    assert i == STEPS - 1


def test_a_float32_epoch_keeps_close_to_the_float64_reference(framework: str) -> None:
    classifier = open_door(framework)
    losses, _, expected = reference_epoch("conv and dense", "grey")
    assert deviation(classifier.train_epoch(epoch()).loss, losses) <= 1e-4
    assert largest_deviation(classifier.state().weights, expected.weights) <= 1e-4


@both_precisions
def test_results_are_float64_losses_and_int64_counts_step_by_step(framework: str, precision: str) -> None:
    result = open_door(framework, precision=precision).train_epoch(epoch())
    assert (result.loss.dtype, result.loss.shape) == (np.float64, (STEPS,))
    assert (result.correct.dtype, result.correct.shape) == (np.int64, (STEPS,))
    assert result.seconds > 0


def test_a_learning_rate_of_zero_leaves_the_weights(framework: str) -> None:
    classifier = open_door(framework)
    before = classifier.state()
    classifier.train_epoch(epoch(learning_rate=0.0))
    after = classifier.state()
    assert all(after.weights[name].tobytes() == value.tobytes() for name, value in before.weights.items())
    assert after.step == STEPS
    assert after.slots["momentum"]["dense1/kernel"].any()


def test_other_examples_can_be_attached_after_training(framework: str) -> None:
    images, labels = examples(count=20, seed=1)
    plan = EpochPlan(np.arange(19, -1, -1), BATCH_SIZE, np.full(2, 0.02), np.zeros(2, np.int64))
    reused, fresh = create(framework), open_door(framework)
    reused.train_epoch(epoch())
    backend.initialise(reused, seed=0)
    for classifier in (reused, fresh):
        classifier.load_training_data(images, labels)
    found, expected = reused.train_epoch(plan), fresh.train_epoch(plan)
    fresh.load_training_data(*examples())
    assert np.array_equal(found.loss, expected.loss)
    assert_same_bits(reused.state(), fresh.state())


def test_the_step_count_goes_on_from_epoch_to_epoch(framework: str) -> None:
    classifier = open_door(framework)
    classifier.train_epoch(epoch(0))
    classifier.train_epoch(epoch(1))
    assert classifier.state().step == 2 * STEPS


# Repetition and continuation, to the last bit


def test_two_classifiers_of_one_seed_train_to_the_same_bits(framework: str) -> None:
    losses, states = [], []
    for _ in range(2):
        classifier = create(framework)
        losses.append(np.concatenate([classifier.train_epoch(epoch(number)).loss for number in range(3)]))
        states.append(classifier.state())
    assert np.array_equal(losses[0], losses[1])
    assert_same_bits(states[0], states[1])


@pytest.mark.parametrize("cuts", [[0, 1, 3, 4], [0, 3, 4], [0, 2, 4]], ids=str)
def test_segments_of_a_plan_train_to_the_bits_of_the_whole(framework: str, cuts: list[int]) -> None:
    classifier = open_door(framework)
    whole, expected = classifier.train_epoch(epoch()), classifier.state()
    backend.initialise(classifier, seed=0)
    pieces = [epoch().segment(start, stop) for start, stop in itertools.pairwise(cuts)]
    results = [classifier.train_epoch(piece) for piece in pieces]
    assert np.array_equal(np.concatenate([result.loss for result in results]), whole.loss)
    assert np.array_equal(np.concatenate([result.correct for result in results]), whole.correct)
    assert_same_bits(classifier.state(), expected)


def test_compiling_leaves_the_state_and_the_training_as_they_were(framework: str) -> None:
    classifier = open_door(framework)
    for number in range(2):
        classifier.train_epoch(epoch(number))
    expected = classifier.state()
    backend.initialise(classifier, seed=0)
    for number in range(2):
        before = classifier.state()
        assert classifier.compile([16, 2]) > 0
        assert_same_bits(classifier.state(), before)
        classifier.train_epoch(epoch(number))
    assert_same_bits(classifier.state(), expected)


@both_precisions
def test_a_restored_state_continues_to_the_bits_of_an_uninterrupted_run(framework: str, precision: str) -> None:
    classifier = open_door(framework, precision=precision)
    classifier.train_epoch(epoch(0))
    middle = classifier.state()
    losses, end = classifier.train_epoch(epoch(1)).loss, classifier.state()

    fresh = create(framework, precision=precision)
    fresh.restore(middle)
    assert_same_bits(fresh.state(), middle)
    assert np.array_equal(fresh.train_epoch(epoch(1)).loss, losses)
    assert_same_bits(fresh.state(), end)


# Files


def saved(framework: str, folder: Path) -> tuple[Classifier, Path]:
    classifier = open_door(framework)
    classifier.train_epoch(epoch())
    backend.save(classifier, framework, folder / "model")
    return classifier, folder / "model"


def test_a_saved_classifier_predicts_the_same_bits(framework: str, tmp_path: Path) -> None:
    classifier, folder = saved(framework, tmp_path)
    loaded = backend.load(folder)
    images, _ = examples(seed=2)
    assert np.array_equal(loaded.predict(images), classifier.predict(images))
    assert (loaded.architecture, loaded.train) == (classifier.architecture, classifier.train)


def test_a_saved_classifier_can_be_saved_over(framework: str, tmp_path: Path) -> None:
    classifier, folder = saved(framework, tmp_path)
    classifier.train_epoch(epoch(1))
    backend.save(classifier, framework, folder)
    images, _ = examples()
    assert np.array_equal(backend.load(folder).predict(images), classifier.predict(images))


def truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def overwrite(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def describe(**changes: Any) -> Callable[[Path], None]:
    """Change keys of the description; None takes a key away."""

    def damage(folder: Path) -> None:
        description = json.loads((folder / "classifier.json").read_text()) | changes
        kept = {key: value for key, value in description.items() if value is not None}
        (folder / "classifier.json").write_text(json.dumps(kept))

    return damage


def reshape(
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], *, digest: bool = True
) -> Callable[[Path], None]:
    """Change the weights; `digest`: and what the description says of the file."""

    def damage(folder: Path) -> None:
        path = folder / "weights.safetensors"
        save_file({name: np.ascontiguousarray(value) for name, value in change(load_file(path)).items()}, path)
        if digest:
            describe(weights=hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest())(folder)

    return damage


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no folder": shutil.rmtree,
    "no weights": remove("weights.safetensors"),
    "no description": remove("classifier.json"),
    "weights cut short": truncate("weights.safetensors"),
    "description cut short": truncate("classifier.json"),
    "empty weights": overwrite("weights.safetensors", b""),
    "weights that are something else": overwrite("weights.safetensors", b"not a tensor in sight"),
    "description that is not text": overwrite("classifier.json", b"\xff\xfe\x00"),
    "description that is a list": overwrite("classifier.json", b"[]"),
    "unknown framework": describe(framework="abacus"),
    "no framework": describe(framework=None),
    "no network": describe(model=None),
    "unknown way of training": describe(train={"epochs": "many"}),
    "other images": describe(image_shape=[9, 9, 1]),
    "images without channels": describe(image_shape=[8, 7]),
    "other classes": describe(classes=4),
    "transposed kernel": reshape(lambda weights: {**weights, "dense1/kernel": weights["dense1/kernel"].T}),
    "weights of another": reshape(lambda weights: {n: v + 1 for n, v in weights.items()}, digest=False),
    "no digest": describe(weights=None),
    "missing parameter": reshape(lambda weights: {n: v for n, v in weights.items() if n != "dense1/bias"}),
    "additional parameter": reshape(lambda weights: {**weights, "dense9/bias": np.zeros(3, np.float32)}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_with_its_path(framework: str, damage: Callable[[Path], Any], tmp_path: Path) -> None:
    _, folder = saved(framework, tmp_path)
    damage(folder)
    with pytest.raises(UserError) as raised:
        backend.load(folder)
    assert str(folder) in str(raised.value)


# The other framework, in a process of its own


def leave_traces(framework: str, folder: Path) -> None:
    """Run in a process of its own, see `left_by_the_other`."""
    images, _ = examples("colour")
    classifier = create(framework, "two convs", "colour", execution="eager")
    classifier.train_epoch(epoch(0))
    backend.save(classifier, framework, folder / "model")
    np.save(folder / "outputs.npy", classifier.predict(images))
    exact = create(framework, "two convs", "colour", precision="float64", execution="eager")
    for number in range(2):
        exact.train_epoch(epoch(number))
        state = exact.state()
        np.savez(folder / f"weights{number}.npz", **state.weights)
        for slot, values in state.slots.items():
            np.savez(folder / f"{slot}{number}.npz", **values)
    foreign = sorted({"tensorflow", "keras", "torch"} & sys.modules.keys())
    (folder / "imported.json").write_text(json.dumps(foreign))


@pytest.fixture
def left_by_the_other(framework: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the other framework saved: once in each worker, whose base folder is its own."""
    folder = tmp_path_factory.getbasetemp() / f"left_by_{OTHER[framework]}"
    if not folder.exists():
        folder.mkdir()
        command = workers.command(OTHER[framework], "test_classifier", OTHER[framework], str(folder))
        done = subprocess.run(command, cwd=ROOT / "tests", env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def stored_state(folder: Path, number: int) -> State:
    weights, momentum, velocity = (
        dict(np.load(folder / f"{name}{number}.npz")) for name in ("weights", "momentum", "velocity")
    )
    return State(weights, {"momentum": momentum, "velocity": velocity}, STEPS * (number + 1))


def test_what_one_framework_saves_the_other_loads(framework: str, left_by_the_other: Path) -> None:
    loaded = backend.load(left_by_the_other / "model", framework)
    assert type(loaded).__name__ == frameworks.find(framework).backend.partition(":")[2]
    outputs = loaded.predict(examples("colour")[0])
    assert np.abs(outputs - np.load(left_by_the_other / "outputs.npy")).max() <= 1e-5


def test_a_model_trained_on_a_gpu_in_a_way_of_its_own_is_loaded_here(framework: str, tmp_path: Path) -> None:
    classifier = open_door(framework)
    backend.save(classifier, framework, tmp_path)
    path = tmp_path / "classifier.json"
    description = json.loads(path.read_text())
    description["train"] |= {"device": "gpu", "execution": "graph"}
    path.write_text(json.dumps(description))
    images, _ = examples()
    assert np.array_equal(backend.load(tmp_path).predict(images), classifier.predict(images))


def test_training_continues_from_a_state_of_the_other_framework(framework: str, left_by_the_other: Path) -> None:
    classifier = open_door(framework, "two convs", "colour", precision="float64")
    classifier.restore(stored_state(left_by_the_other, 0))
    classifier.train_epoch(epoch(1))
    found, expected = classifier.state(), stored_state(left_by_the_other, 1)
    assert found.step == expected.step
    assert largest_deviation(found.weights, expected.weights) <= 1e-9
    for slot in ("momentum", "velocity"):
        assert largest_deviation(found.slots[slot], expected.slots[slot]) <= 1e-9


def test_opening_one_door_does_not_import_the_other(framework: str, left_by_the_other: Path) -> None:
    own = {"tensorflow": ["keras", "tensorflow"], "pytorch": ["torch"]}[OTHER[framework]]
    assert json.loads((left_by_the_other / "imported.json").read_text()) == own


def test_the_seam_alone_imports_no_framework() -> None:
    code = (
        "import sys, pipeline.models.backend\n"
        "imported = {'tensorflow', 'keras', 'torch'} & sys.modules.keys()\n"
        "sys.exit(f'imported: {imported}' if imported else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    leave_traces(sys.argv[1], Path(sys.argv[2]))
