"""The declared network, independent of any framework: layers, shapes, parameters, initial weights.

Canonical layouts, whatever a framework uses internally: images (N, height, width, channels), convolution kernels
(height, width, in, out), dense kernels (in, out); flatten varies the channels fastest.
"""

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np

from ..config.schema.model import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    ModelConfig,
    Normalise,
    Residual,
)
from ..core.errors import UserError
from ..data.dataset import Dataset
from ..data.plan import WEIGHTS_STREAM

Shape = tuple[int, ...]
Window = Conv | MaxPool | AveragePool
Role = Literal["kernel", "bias", "scale", "offset", "mean", "variance"]

_PREDICTED_AT_ONCE: Final = 512  # images
_LAYER_BYTES: Final = 1 << 27  # of one layer's output; a few layers exist at once


@dataclass(frozen=True)
class Parameter:
    """One array of a layer; `fan_in`, `fan_out`: as in Glorot & Bengio 2010 for kernels and biases, else 0."""

    layer: str
    role: Role
    shape: Shape
    fan_in: int = 0
    fan_out: int = 0

    @property
    def name(self) -> str:
        """`<layer>/<role>`, as in `conv1/kernel`."""
        return f"{self.layer}/{self.role}"

    @property
    def trainable(self) -> bool:
        """Whether the optimiser updates it: false for running statistics of batch norm and moments of the data."""
        return self.role not in ("mean", "variance")


@dataclass(frozen=True)
class LayerSpec:
    """A declared layer at its position in the network; shapes are those of one example, without the batch axis."""

    name: str
    layer: Layer | Normalise
    input_shape: Shape
    output_shape: Shape
    parameters: tuple[Parameter, ...] = ()
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    """Padding of a window layer: rows above and below, columns left and right."""
    dropout_number: int = 0
    """Index of this layer among the network's dropout layers: 0, 1, ...; 0 for other layers."""
    branch: tuple["LayerSpec", ...] = ()
    """Layers of a residual block."""
    shortcut: tuple["LayerSpec", ...] = ()
    """Layers of its shortcut; empty: the identity."""

    def walk(self) -> Iterator["LayerSpec"]:
        """Yield this layer and all layers within it, in the order of their parameters."""
        yield self
        for inner in (*self.branch, *self.shortcut):
            yield from inner.walk()


@dataclass(frozen=True)
class Architecture:
    """A `ModelConfig` applied to one image shape and number of classes. Raises `UserError` if a layer does not fit."""

    model: ModelConfig
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    classes: int
    channel_mean: tuple[float, ...] = ()
    """Mean of the training images by channel, in [0, 1]; needed by the initial weights of `model.normalise`."""
    channel_std: tuple[float, ...] = ()
    """Standard deviation of the training images by channel, on the same scale."""

    @classmethod
    def of(cls, model: ModelConfig, dataset: Dataset) -> "Architecture":
        """Apply a model to the images of a data set. Raises `UserError` if a layer does not fit."""
        mean, std = tuple(dataset.facts.channel_mean), tuple(dataset.facts.channel_std)
        return cls(model, dataset.image_shape, len(dataset.classes), mean, std)

    def __post_init__(self) -> None:
        _ = self.layers  # raises for layers that do not fit

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The layers in order, named `<type><count>`: conv1, conv2, flatten1; the count includes layers of branches."""
        layers = self._place_all(self.model.layers, self.image_shape, "model.layers", Counter())
        if not self.model.normalise:
            return layers
        name, channels = "normalise1", self.image_shape[-1:]
        arrays = Parameter(name, "mean", channels), Parameter(name, "variance", channels)
        return (LayerSpec(name, Normalise(), self.image_shape, self.image_shape, arrays), *layers)

    @cached_property
    def all_layers(self) -> tuple[LayerSpec, ...]:
        """The layers, each followed by the layers within it."""
        return tuple(inner for spec in self.layers for inner in spec.walk())

    @cached_property
    def arrays(self) -> tuple[Parameter, ...]:
        """All arrays of a saved network: trainable parameters and running statistics, layer by layer."""
        return tuple(parameter for spec in self.all_layers for parameter in spec.parameters)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The arrays that the optimiser updates."""
        return tuple(parameter for parameter in self.arrays if parameter.trainable)

    @property
    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        return sum(math.prod(parameter.shape) for parameter in self.parameters)

    def predict_batch(self, precision: str, *, most: int = _PREDICTED_AT_ONCE, layer_bytes: int = _LAYER_BYTES) -> int:
        """Return how many images are predicted at once: `most`, or a smaller power of two for large images.

        The largest layer's output takes at most `layer_bytes` in this precision, unless that of one image takes more.
        """
        shapes = (shape for spec in self.all_layers for shape in (spec.input_shape, spec.output_shape))
        fitting = layer_bytes // (max(map(math.prod, shapes)) * np.dtype(precision).itemsize)
        return 1 << (max(1, min(fitting, most)).bit_length() - 1)

    def initial_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Draw every array, float64, by name. Each has its own random stream: a new layer does not change the others.

        `glorot_uniform`: ±sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010; Keras' default).
        `kaiming_uniform`: ±1 / sqrt(fan_in), He et al. 2015 with a = sqrt(5) (the default of torch.nn.Linear, Conv2d).
        Biases: `zeros` (Keras), or `fan_in_uniform`: ±1 / sqrt(fan_in) (torch).
        Batch norm starts at scale 1, offset 0, mean 0, variance 1. Normalisation has the mean and the variance of the
        training images; a constant channel has variance 1, as in scikit-learn's StandardScaler. Raises ValueError if
        `model.normalise` is set and the channel moments are missing.
        """
        return {array.name: self._initial(array, seed) for array in self.arrays} | self._moments()

    def _moments(self) -> dict[str, np.ndarray]:
        if not self.model.normalise:
            return {}
        if not self.channel_mean:
            raise ValueError("model.normalise: mean and standard deviation of the images are missing")
        variance = np.square(self.channel_std)
        return {
            "normalise1/mean": np.array(self.channel_mean),
            "normalise1/variance": np.where(variance > 0, variance, 1.0),
        }

    def _initial(self, array: Parameter, seed: int) -> np.ndarray:
        if array.role in ("scale", "variance"):
            return np.ones(array.shape)
        if array.role in ("offset", "mean"):
            return np.zeros(array.shape)
        rule = self.model.bias_initializer if array.role == "bias" else self.model.kernel_initializer
        bound = {
            "glorot_uniform": math.sqrt(6 / (array.fan_in + array.fan_out)),
            "kaiming_uniform": 1 / math.sqrt(array.fan_in),
            "fan_in_uniform": 1 / math.sqrt(array.fan_in),
            "zeros": 0.0,
        }[rule]
        generator = np.random.default_rng([seed, WEIGHTS_STREAM, zlib.crc32(array.name.encode())])
        return generator.uniform(-bound, bound, array.shape) if bound else np.zeros(array.shape)

    def require_normalisable(self, batch_sizes: Sequence[int]) -> None:
        """Raise `UserError` if a batch of one of these sizes gives a batch norm one value per channel."""
        for spec in self.all_layers:
            if isinstance(spec.layer, BatchNorm) and 1 in batch_sizes and math.prod(spec.input_shape[:-1]) == 1:
                raise UserError(
                    f"train.batch_size: leaves a batch of one example, and {spec.name} gets one value per channel, "
                    "which has no variance; allowed: a batch size that leaves no batch of one example"
                )

    def _place_all(
        self, layers: Sequence[Layer], shape: Shape, key: str, counts: Counter[str]
    ) -> tuple[LayerSpec, ...]:
        specs: list[LayerSpec] = []
        for position, layer in enumerate(layers):
            before = layers[position - 1] if position else None
            affine = isinstance(before, Conv | Dense) and before.bias and not before.activation
            if affine and isinstance(layer, BatchNorm):
                # the bias has a gradient of rounding errors only, which Adam scales to full steps in a random direction
                raise UserError(
                    f"{key}[{position - 1}].bias = True: the batch_norm after it cancels the bias; allowed: False"
                )
            specs.append(self._place(layer, shape, f"{key}[{position}]", counts))
            shape = specs[-1].output_shape
        return tuple(specs)

    def _place(self, layer: Layer, shape: Shape, key: str, counts: Counter[str]) -> LayerSpec:
        counts[layer.type] += 1
        name = f"{layer.type}{counts[layer.type]}"
        match layer:
            case Conv() | MaxPool() | AveragePool():
                return _place_window(layer, name, shape, key)
            case GlobalAveragePool():
                _require_image(layer, shape, key)
                return LayerSpec(name, layer, shape, shape[-1:])
            case BatchNorm():
                roles: tuple[Role, ...] = ("scale", "offset", "mean", "variance")
                arrays = tuple(Parameter(name, role, shape[-1:]) for role in roles)
                return LayerSpec(name, layer, shape, shape, arrays)
            case Dropout():
                return LayerSpec(name, layer, shape, shape, dropout_number=counts["dropout"] - 1)
            case Flatten():
                return LayerSpec(name, layer, shape, (math.prod(shape),))
            case Dense():
                if len(shape) != 1:
                    raise UserError(f"{key}: dense after an output of shape {shape}; add {{type: flatten}} before it")
                units = self.classes if layer.units == "classes" else layer.units
                arrays = _affine(name, (shape[0], units), shape[0], units, layer.bias)
                return LayerSpec(name, layer, shape, (units,), arrays)
            case Residual():
                branch = self._place_all(layer.layers, shape, f"{key}.layers", counts)
                shortcut = self._place_all(layer.shortcut, shape, f"{key}.shortcut", counts)
                output, skip = branch[-1].output_shape, shortcut[-1].output_shape if shortcut else shape
                if output != skip:
                    raise UserError(
                        f"{key}: its layers give {output}, its shortcut {skip}, and only equal shapes can be added; "
                        "{type: conv, kernel_size: 1} in the shortcut changes its shape"
                    )
                return LayerSpec(name, layer, shape, output, branch=branch, shortcut=shortcut)


def _place_window(layer: Window, name: str, shape: Shape, key: str) -> LayerSpec:
    _require_image(layer, shape, key)
    height, width, channels = shape
    size, stride = (layer.kernel_size, layer.stride) if isinstance(layer, Conv) else (layer.size, layer.stride)
    stride = stride or size
    if layer.padding == "same":
        padding = (_same_padding(height, size, stride), _same_padding(width, size, stride))
    else:
        padding = ((0, 0), (0, 0))
        if size > min(height, width):
            field_name = "kernel_size" if isinstance(layer, Conv) else "size"
            most = min(height, width)
            raise UserError(
                f"{key}.{field_name} = {size}: larger than its input of {height}x{width}; allowed: 1 to {most}"
            )
    rows, columns = (
        (length + sum(pad) - size) // stride + 1 for length, pad in zip((height, width), padding, strict=True)
    )
    if not isinstance(layer, Conv):
        return LayerSpec(name, layer, shape, (rows, columns, channels), padding=padding)
    kernel = (size, size, channels, layer.filters)
    arrays = _affine(name, kernel, size * size * channels, size * size * layer.filters, layer.bias)
    return LayerSpec(name, layer, shape, (rows, columns, layer.filters), arrays, padding)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def _require_image(layer: Layer, shape: Shape, key: str) -> None:
    if len(shape) != 3:
        raise UserError(f"{key}: {layer.type} after an output of shape {shape}; allowed: (height, width, channels)")


def _affine(name: str, kernel: Shape, fan_in: int, fan_out: int, bias: bool) -> tuple[Parameter, ...]:
    arrays = (
        Parameter(name, "kernel", kernel, fan_in, fan_out),
        Parameter(name, "bias", kernel[-1:], fan_in, fan_out),
    )
    return arrays if bias else arrays[:1]
