"""The declared network: shapes, names, and the initial weights that both frameworks start from."""

import math
from typing import Any

import numpy as np
import pytest

from pipeline.config.compose import compose
from pipeline.config.schema.model import ModelConfig
from pipeline.core.errors import UserError
from pipeline.models.architecture import Architecture

CONV = {"type": "conv", "filters": 8, "kernel_size": 3}
FLATTEN = {"type": "flatten"}
DENSE = {"type": "dense", "units": 16}
LOGITS = {"type": "dense", "units": "classes"}
POOL = {"type": "max_pool", "size": 2}


def build(
    *layers: dict[str, Any],
    image_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    kernel_initializer: str = "glorot_uniform",
    bias_initializer: str = "fan_in_uniform",
) -> Architecture:
    rules = {"kernel_initializer": kernel_initializer, "bias_initializer": bias_initializer}
    return Architecture(
        ModelConfig.model_validate({"name": "test", **rules, "layers": list(layers)}), image_shape, classes
    )


def shipped(name: str) -> Architecture:
    return Architecture(compose([f"model={name}"]).model, (28, 28, 1), 10)


@pytest.mark.parametrize("name", ["simple_cnn", "seed_tensorflow", "seed_pytorch"])
def test_the_shipped_network_has_the_shapes_and_size_of_the_tutorials(name: str) -> None:
    network = shipped(name)
    assert [(spec.name, spec.output_shape) for spec in network.layers] == [
        ("conv1", (26, 26, 32)),
        ("flatten1", (26 * 26 * 32,)),
        ("dense1", (128,)),
        ("dense2", (10,)),
    ]
    assert network.parameter_count == 2_770_634


def test_parameters_are_named_by_layer_with_kernel_before_bias() -> None:
    assert {parameter.name: parameter.shape for parameter in shipped("simple_cnn").parameters} == {
        "conv1/kernel": (3, 3, 1, 32),
        "conv1/bias": (32,),
        "dense1/kernel": (21632, 128),
        "dense1/bias": (128,),
        "dense2/kernel": (128, 10),
        "dense2/bias": (10,),
    }
    names = [parameter.name for parameter in build(CONV, CONV, FLATTEN, LOGITS).parameters]
    assert names == [f"{layer}/{part}" for layer in ("conv1", "conv2", "dense1") for part in ("kernel", "bias")]


def test_shapes_follow_the_image_and_the_classes() -> None:
    network = build(CONV, CONV, FLATTEN, LOGITS, image_shape=(12, 9, 3), classes=7)
    assert [spec.output_shape for spec in network.layers] == [(10, 7, 8), (8, 5, 8), (320,), (7,)]
    for spec, after in zip(network.layers, network.layers[1:], strict=False):
        assert after.input_shape == spec.output_shape
    assert network.parameters[0].shape == (3, 3, 3, 8)


def test_a_kernel_may_be_as_large_as_its_image() -> None:
    assert build({**CONV, "kernel_size": 28}, FLATTEN, LOGITS).layers[0].output_shape == (1, 1, 8)


def test_weights_have_the_declared_shapes_in_float64() -> None:
    network = build(CONV, FLATTEN, DENSE, LOGITS)
    weights = network.initial_weights(0)
    assert list(weights) == [parameter.name for parameter in network.parameters]
    for parameter in network.parameters:
        assert weights[parameter.name].shape == parameter.shape
        assert weights[parameter.name].dtype == np.float64


# Fans of conv1 (3x3, 1 -> 64), dense1 (26*26*64 -> 64), dense2 (64 -> 10), as Glorot & Bengio 2010 count them.
WIDE = ({**CONV, "filters": 64}, FLATTEN, {**DENSE, "units": 64}, LOGITS)
FANS = {"conv1": (9, 576), "dense1": (43264, 64), "dense2": (64, 10)}
BOUNDS = {
    "glorot_uniform": lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out)),
    "kaiming_uniform": lambda fan_in, fan_out: math.sqrt(1 / fan_in),
    "fan_in_uniform": lambda fan_in, fan_out: math.sqrt(1 / fan_in),
}


def assert_uniform_within(values: np.ndarray, bound: float) -> None:
    assert np.abs(values).max() <= bound
    slack = bound * 12 / values.size  # the extremes of n uniform draws miss the bound by about 2 bounds / n
    assert values.max() > bound - slack
    assert values.min() < slack - bound
    assert abs(values.mean()) < 4 * bound / math.sqrt(3 * values.size)


@pytest.mark.parametrize("rule", ["glorot_uniform", "kaiming_uniform"])
@pytest.mark.parametrize("layer", FANS)
def test_kernels_fill_the_interval_of_their_rule(rule: str, layer: str) -> None:
    weights = build(*WIDE, kernel_initializer=rule).initial_weights(0)
    assert_uniform_within(weights[f"{layer}/kernel"], BOUNDS[rule](*FANS[layer]))


@pytest.mark.parametrize("layer", ["conv1", "dense1"])
def test_biases_fill_the_interval_of_their_rule(layer: str) -> None:
    weights = build(*WIDE, bias_initializer="fan_in_uniform").initial_weights(0)
    assert_uniform_within(weights[f"{layer}/bias"], BOUNDS["fan_in_uniform"](*FANS[layer]))


def test_zero_biases_are_zero_and_kernels_are_not() -> None:
    for name, values in build(*WIDE, bias_initializer="zeros").initial_weights(0).items():
        assert values.any() == name.endswith("kernel")


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before() -> None:
    network = build(CONV, FLATTEN, LOGITS)
    first = network.initial_weights(5)
    np.random.seed(9)
    network.initial_weights(6)
    again = build(CONV, FLATTEN, LOGITS).initial_weights(5)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_another_seed_moves_every_parameter() -> None:
    network = build(CONV, FLATTEN, DENSE, LOGITS)
    first, second = network.initial_weights(0), network.initial_weights(1)
    assert all(not np.isclose(first[name], second[name]).any() for name in first)


def test_another_layer_does_not_move_the_weights_of_the_others() -> None:
    pointwise = {**CONV, "kernel_size": 1}
    before = build(CONV, FLATTEN, DENSE, LOGITS).initial_weights(0)
    after = build(CONV, pointwise, FLATTEN, DENSE, LOGITS).initial_weights(0)
    assert set(after) - set(before) == {"conv2/kernel", "conv2/bias"}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_layers_of_one_shape_have_different_weights() -> None:
    weights = build(CONV, FLATTEN, DENSE, DENSE, DENSE, LOGITS).initial_weights(0)
    assert weights["dense2/kernel"].shape == weights["dense3/kernel"].shape
    assert not np.isclose(weights["dense2/kernel"], weights["dense3/kernel"]).all()
    assert not np.isclose(weights["dense2/bias"], weights["dense3/bias"]).any()


MISFITS = {
    "dense after an image": ((CONV, LOGITS), r"model\.layers\[1\]: dense after .*\(26, 26, 8\).*flatten"),
    "dense on the image": ((LOGITS,), r"model\.layers\[0\]: dense after .*\(28, 28, 1\)"),
    "conv after flatten": ((FLATTEN, CONV, LOGITS), r"model\.layers\[1\]: conv after .*\(784,\)"),
    "conv after dense": ((FLATTEN, DENSE, CONV, LOGITS), r"model\.layers\[2\]: conv after .*\(16,\)"),
    "kernel larger than the image": (
        ({**CONV, "kernel_size": 29}, FLATTEN, LOGITS),
        r"model\.layers\[0\]\.kernel_size = 29: .*28x28",
    ),
    "pool after flatten": ((FLATTEN, POOL, LOGITS), r"model\.layers\[1\]: max_pool after .*\(784,\)"),
    "global pool after flatten": (
        (FLATTEN, {"type": "global_average_pool"}, LOGITS),
        r"model\.layers\[1\]: global_average_pool after",
    ),
    "window larger than the image": (
        ({**POOL, "size": 40}, FLATTEN, LOGITS),
        r"model\.layers\[0\]\.size = 40: .*28x28",
    ),
    "branches of two shapes": (
        ({"type": "residual", "layers": [CONV]}, FLATTEN, LOGITS),
        r"model\.layers\[0\]: its layers give \(26, 26, 8\), its shortcut \(28, 28, 1\)",
    ),
    "inside of a branch": (
        ({"type": "residual", "layers": [CONV, {**CONV, "kernel_size": 30}]}, FLATTEN, LOGITS),
        r"model\.layers\[0\]\.layers\[1\]\.kernel_size = 30",
    ),
    "bias that batch norm cancels": (
        (CONV, {"type": "batch_norm"}, FLATTEN, LOGITS),
        r"model\.layers\[0\]\.bias = True: .*batch_norm .* allowed: False",
    ),
    "kernel larger than what is left": (
        (CONV, {**CONV, "kernel_size": 27}, FLATTEN, LOGITS),
        r"model\.layers\[1\]\.kernel_size = 27: .*26x26",
    ),
}


@pytest.mark.parametrize(("layers", "message"), MISFITS.values(), ids=MISFITS)
def test_a_layer_that_does_not_fit_is_named_by_its_key(layers: tuple[dict[str, Any], ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(*layers)


@pytest.mark.parametrize("size", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 4))
def test_same_padding_leaves_the_length_divided_by_the_stride(size: int, stride: int) -> None:
    layer = {"type": "conv", "filters": 1, "kernel_size": size, "stride": stride, "padding": "same"}
    spec = build(layer, FLATTEN, LOGITS, image_shape=(28, 11, 1)).layers[0]
    assert spec.output_shape == (math.ceil(28 / stride), math.ceil(11 / stride), 1)
    assert all(after - before in (0, 1) for before, after in spec.padding)


def test_layers_are_counted_through_branches() -> None:
    network = shipped("resnet8")
    names = [spec.name for spec in network.all_layers if spec.name.startswith("conv")]
    assert names == [f"conv{i}" for i in range(1, 10)]
    assert network.parameter_count == 77_754
    assert {array.role for array in network.arrays if not array.trainable} == {"mean", "variance"}
    assert shipped("lenet5").parameter_count == 61_706


def test_batch_norm_starts_as_the_identity() -> None:
    weights = build({**CONV, "bias": False}, {"type": "batch_norm"}, FLATTEN, LOGITS).initial_weights(3)
    values = {role: set(weights[f"batch_norm1/{role}"].tolist()) for role in ("scale", "offset", "mean", "variance")}
    assert values == {"scale": {1.0}, "offset": {0.0}, "mean": {0.0}, "variance": {1.0}}


@pytest.mark.parametrize(
    ("side", "precision", "images", "fewer"),
    [
        *((28, "float32", 512, 128), (32, "float64", 512, 64), (224, "float32", 16, 2)),
        *((224, "float64", 8, 1), (4000, "float32", 1, 1)),
    ],
)
def test_as_many_images_are_predicted_at_once_as_their_largest_layer_allows(
    side: int, precision: str, images: int, fewer: int
) -> None:
    network = build({**CONV, "filters": 32, "padding": "same"}, FLATTEN, LOGITS, image_shape=(side, side, 3))
    assert network.predict_batch(precision) == images
    most = 32 * side * side * np.dtype(precision).itemsize * images
    assert images in (1, 512) or most <= 128 << 20 < 2 * most
    assert network.predict_batch(precision, most=128, layer_bytes=1 << 24) == fewer


def test_a_layer_within_a_residual_block_counts() -> None:
    wide = ({**CONV, "filters": 64, "padding": "same"}, {**CONV, "filters": 3, "padding": "same"})
    block = {"type": "residual", "layers": list(wide)}
    assert build(block, FLATTEN, LOGITS, image_shape=(224, 224, 3)).predict_batch("float32") == 8


def test_a_batch_without_variance_is_refused() -> None:
    dense = build(FLATTEN, {**DENSE, "bias": False}, {"type": "batch_norm"}, LOGITS)
    image = build({**CONV, "bias": False}, {"type": "batch_norm"}, FLATTEN, LOGITS)
    dense.require_normalisable([64, 2])
    image.require_normalisable([64, 1])
    with pytest.raises(UserError, match=r"train\.batch_size: leaves a batch of one example, and batch_norm1"):
        dense.require_normalisable([64, 1])


def test_a_network_that_normalises_starts_with_the_moments_of_the_data() -> None:
    model = compose(["model.normalise=true"]).model
    network = Architecture(model, (28, 28, 3), 10, (0.5, 0.25, 0.75), (0.5, 0.1, 0.0))
    assert [spec.name for spec in network.layers[:2]] == ["normalise1", "conv1"]
    weights = network.initial_weights(0)
    assert list(weights)[:3] == ["normalise1/mean", "normalise1/variance", "conv1/kernel"]
    assert weights["normalise1/mean"].tolist() == [0.5, 0.25, 0.75]
    assert weights["normalise1/variance"] == pytest.approx([0.25, 0.01, 1.0])  # the last channel never varies
    plain = Architecture(compose([]).model, (28, 28, 3), 10)
    assert network.parameters == plain.parameters
    assert all(np.array_equal(weights[name], value) for name, value in plain.initial_weights(0).items())


def test_a_network_that_normalises_is_not_started_without_moments() -> None:
    with pytest.raises(ValueError, match=r"model\.normalise"):
        Architecture(compose(["model.normalise=true"]).model, (28, 28, 1), 10).initial_weights(0)
