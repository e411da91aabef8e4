"""Forward, backward and every optimiser in NumPy alone: what every backend is held against.

Weights may be complex: the imaginary part of the loss then carries a derivative to the last bit (complex-step
differentiation, Squire & Trapp 1998).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.config.schema.train import AugmentConfig, TrainConfig
from pipeline.data.plan import EpochPlan
from pipeline.models.architecture import Architecture, LayerSpec
from pipeline.models.backend import State, slots_of
from pipeline.models.dropout import keep

Weights = Mapping[str, np.ndarray]


def outputs(
    architecture: Architecture, weights: Weights, images: np.ndarray, key: int | None = None
) -> tuple[np.ndarray, Weights]:
    """Outputs of the last layer, and new running values; `key`: of the dropout, None outside of training."""
    running: dict[str, np.ndarray] = {}
    return _apply(architecture.layers, weights, images / 255, key, running), running


def _apply(
    specs: Sequence[LayerSpec], weights: Weights, x: np.ndarray, key: int | None, running: dict[str, np.ndarray]
) -> np.ndarray:
    for spec in specs:
        x = _layer(spec, weights, x, key, running)
        activation = getattr(spec.layer, "activation", None)
        if activation == "relu":
            x = np.where(x.real > 0, x, 0)
        elif activation == "silu":
            x = x / (1 + np.exp(-x))
        elif activation == "tanh":
            x = np.tanh(x)
        elif activation == "softmax":
            x = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    return x


def _layer(
    spec: LayerSpec, weights: Weights, x: np.ndarray, key: int | None, running: dict[str, np.ndarray]
) -> np.ndarray:
    layer: Any = spec.layer
    own = {array.role: weights[array.name] for array in spec.parameters}
    bias = own.get("bias", 0)
    match layer.type:
        case "flatten":
            return x.reshape(len(x), -1)
        case "dense":
            return x @ own["kernel"] + bias
        case "conv":
            windows = _windows(x, spec, layer.kernel_size, layer.stride, 0)
            return np.tensordot(windows, own["kernel"], [(4, 5, 3), (0, 1, 2)]) + bias
        case "max_pool":
            windows = _windows(x, spec, layer.size, layer.stride or layer.size, -1e300)
            flat = windows.reshape(*windows.shape[:4], -1)
            return np.take_along_axis(flat, flat.real.argmax(axis=-1)[..., None], -1)[..., 0]
        case "average_pool":
            window = layer.size, layer.stride or layer.size
            inside = _windows(np.ones_like(x), spec, *window, 0).sum((4, 5))
            return _windows(x, spec, *window, 0).sum((4, 5)) / inside
        case "global_average_pool":
            return x.mean((1, 2))
        case "dropout":
            if key is None:
                return x
            with np.errstate(over="ignore"):
                positions = np.arange(x.size).reshape(x.shape)
                kept = keep(positions, np.int64(key), spec.dropout_number, layer.rate, np.right_shift)
            return np.where(kept, x / (1 - layer.rate), 0)
        case "batch_norm":
            mean, variance = own["mean"], own["variance"]
            if key is not None:
                axes = tuple(range(x.ndim - 1))
                mean = x.mean(axes)
                variance = ((x - mean) ** 2).mean(axes)
                count = x.size / x.shape[-1]
                for role, value in (("mean", mean), ("variance", variance * count / (count - 1))):
                    old = own[role]
                    running[f"{spec.name}/{role}"] = ((1 - layer.momentum) * old + layer.momentum * value).real
            return (x - mean) / np.sqrt(variance + layer.epsilon) * own["scale"] + own["offset"]
        case "normalise":
            return (x - own["mean"]) / np.sqrt(own["variance"])
        case "residual":
            return _apply(spec.branch, weights, x, key, running) + _apply(spec.shortcut, weights, x, key, running)
    raise AssertionError(layer.type)


def augmented(images: np.ndarray, augment: AugmentConfig, draws: np.ndarray) -> np.ndarray:
    """As one would do it by hand: pad and cut, mirror, blacken."""
    pad, half = augment.pad_and_crop, augment.cutout // 2
    height, width = images.shape[1:3]
    found = []
    for image, (up, left, mirrored, low, right) in zip(images, draws.tolist(), strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        new = padded[pad + up : pad + up + height, pad + left : pad + left + width].copy()
        if mirrored:
            new = new[:, ::-1].copy()
        y, x = low * height // 2**32 - half, right * width // 2**32 - half
        new[max(y, 0) : max(y + augment.cutout, 0), max(x, 0) : max(x + augment.cutout, 0)] = 0
        found.append(new)
    return np.array(found)


def _windows(x: np.ndarray, spec: LayerSpec, size: int, stride: int, fill: float) -> np.ndarray:
    """(N, rows, columns, channels, size, size)."""
    padded = np.pad(x, ((0, 0), *spec.padding, (0, 0)), constant_values=fill)
    return sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def loss(found: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> Any:
    """Mean cross-entropy against smoothed targets."""
    classes = found.shape[1]
    targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    logs = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    return -(targets * logs).sum(axis=1).mean()


def gradients(
    architecture: Architecture, weights: Weights, x: np.ndarray, y: np.ndarray, key: int, smoothing: float = 0.0
) -> dict[str, np.ndarray]:
    """The derivative of the loss by every trainable scalar."""
    tiny = 1e-30
    moved = {name: value.astype(complex) for name, value in weights.items()}
    found = {parameter.name: np.empty(parameter.shape) for parameter in architecture.parameters}
    for name, gradient in found.items():
        value = moved[name]
        for index in np.ndindex(value.shape):
            value[index] += tiny * 1j
            gradient[index] = loss(outputs(architecture, moved, x, key)[0], y, smoothing).imag / tiny
            value[index] = value[index].real
    return found


def step(
    architecture: Architecture, train: TrainConfig, state: State, x: np.ndarray, y: np.ndarray, rate: float, key: int
) -> tuple[float, int, State]:
    """Loss and right answers of a batch before its update, and the state after it."""
    config: Any = train.optimizer
    weights, count = dict(state.weights), state.step + 1
    slots = {slot: dict(values) for slot, values in state.slots.items()}
    found, running = outputs(architecture, weights, x, key)
    mean_loss, correct = float(loss(found, y, train.label_smoothing)), int((found.argmax(axis=1) == y).sum())
    slopes = gradients(architecture, weights, x, y, key, train.label_smoothing)
    if train.clip_norm is not None:
        norm = np.sqrt(sum((slope**2).sum() for slope in slopes.values()))
        slopes = {name: slope * min(1, train.clip_norm / norm) for name, slope in slopes.items()}
    for name, slope in slopes.items():
        if config.name == "sgd":
            move = slope
            if config.momentum:
                velocity = slots["momentum"][name] = config.momentum * slots["momentum"][name] + slope
                move = slope + config.momentum * velocity if config.nesterov else velocity
            weights[name] = weights[name] - rate * move
            continue
        first = slots["momentum"][name] = config.beta_1 * slots["momentum"][name] + (1 - config.beta_1) * slope
        second = slots["velocity"][name] = config.beta_2 * slots["velocity"][name] + (1 - config.beta_2) * slope**2
        m, v = first / (1 - config.beta_1**count), second / (1 - config.beta_2**count)
        kept = weights[name] * (1 - rate * config.weight_decay) if config.name == "adamw" else weights[name]
        weights[name] = kept - rate * m / (np.sqrt(v) + config.epsilon)
    return mean_loss, correct, State(weights | running, slots, count)


def epoch(
    architecture: Architecture, train: TrainConfig, images: np.ndarray, labels: np.ndarray, plan: EpochPlan
) -> tuple[np.ndarray, np.ndarray, State]:
    """Losses, right answers and the final state of one epoch from the weights of seed 0."""
    zeros = {slot: {p.name: np.zeros(p.shape) for p in architecture.parameters} for slot in slots_of(train)}
    state, losses, corrects = State(architecture.initial_weights(0), zeros, 0), [], []
    for i, rate in enumerate(plan.learning_rate):
        rows = plan.order[i * plan.batch_size : (i + 1) * plan.batch_size]
        key = int(plan.dropout_keys[i])
        mean_loss, correct, state = step(architecture, train, state, images[rows], labels[rows], rate, key)
        losses.append(mean_loss)
        corrects.append(correct)
    return np.array(losses), np.array(corrects), state


def assert_same_bits(found: State, expected: State) -> None:
    assert found.step == expected.step
    assert found.slots.keys() == expected.slots.keys()
    pairs = [(found.weights, expected.weights), *((found.slots[slot], expected.slots[slot]) for slot in expected.slots)]
    for one, other in pairs:
        assert list(one) == list(other)
        for name, value in other.items():
            assert one[name].dtype == value.dtype, name
            assert one[name].tobytes() == value.tobytes(), name
