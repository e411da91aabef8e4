"""The declared network, without any framework: layers, shapes, parameters, initial weights.

Canonical layouts, whatever a framework uses inside: images (N, height, width, channels), convolution kernels
(height, width, in, out), dense kernels (in, out), and flatten with the channels fastest.
"""

import math
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..config import ModelConfig
from ..config.schema import Conv, Dense, Flatten
from ..data.plan import WEIGHTS_STREAM
from ..errors import UserError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """One trainable array; `fan_in` and `fan_out` as Glorot & Bengio 2010 count them."""

    name: str
    shape: Shape
    fan_in: int
    fan_out: int
    is_bias: bool


@dataclass(frozen=True)
class LayerSpec:
    """A declared layer in its place: shapes are those of one example, without the batch axis."""

    name: str
    layer: Conv | Flatten | Dense
    input_shape: Shape
    output_shape: Shape
    units: int
    """Filters of a convolution, units of a dense layer, 0 elsewhere."""
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Architecture:
    """A `ModelConfig` applied to images of one shape and a number of classes. Raises `UserError` if it does not fit."""

    model: ModelConfig
    image_shape: tuple[int, int, int]
    classes: int

    def __post_init__(self) -> None:
        _ = self.layers

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The layers in order, named `<type><count>`: conv1, flatten1, dense1, dense2."""
        specs: list[LayerSpec] = []
        shape: Shape = self.image_shape
        counts: Counter[str] = Counter()
        for position, layer in enumerate(self.model.layers):
            counts[layer.type] += 1
            spec = self._place(layer, f"{layer.type}{counts[layer.type]}", shape, f"model.layers[{position}]")
            specs.append(spec)
            shape = spec.output_shape
        return tuple(specs)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every trainable array, in the order of the layers, kernel before bias."""
        return tuple(parameter for spec in self.layers for parameter in spec.parameters)

    @property
    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        return sum(math.prod(parameter.shape) for parameter in self.parameters)

    def initial_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Draw every parameter, float64, by name. Each has its own stream: a layer more does not move the others.

        `glorot_uniform`: ±sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010; Keras' default).
        `kaiming_uniform`: ±1 / sqrt(fan_in), He et al. 2015 with a = sqrt(5) (the default of torch.nn.Linear, Conv2d).
        Biases: `zeros` (Keras), or `fan_in_uniform`: ±1 / sqrt(fan_in) (torch).
        """
        weights = {}
        for parameter in self.parameters:
            rule = self.model.bias_initializer if parameter.is_bias else self.model.kernel_initializer
            bound = {
                "glorot_uniform": math.sqrt(6 / (parameter.fan_in + parameter.fan_out)),
                "kaiming_uniform": 1 / math.sqrt(parameter.fan_in),
                "fan_in_uniform": 1 / math.sqrt(parameter.fan_in),
                "zeros": 0.0,
            }[rule]
            generator = np.random.default_rng([seed, WEIGHTS_STREAM, zlib.crc32(parameter.name.encode())])
            weights[parameter.name] = (
                generator.uniform(-bound, bound, parameter.shape) if bound else np.zeros(parameter.shape)
            )
        return weights

    def _place(self, layer: Conv | Flatten | Dense, name: str, shape: Shape, key: str) -> LayerSpec:
        if isinstance(layer, Flatten):
            return LayerSpec(name, layer, shape, (math.prod(shape),), 0, ())
        if isinstance(layer, Dense):
            if len(shape) != 1:
                raise UserError(f"{key}: dense after an output of shape {shape}; put {{type: flatten}} before it")
            units = self.classes if layer.units == "classes" else layer.units
            return LayerSpec(name, layer, shape, (units,), units, _affine(name, (shape[0], units), shape[0], units))
        if len(shape) != 3:
            raise UserError(f"{key}: conv after an output of shape {shape}; allowed: (height, width, channels)")
        height, width, channels = shape
        size = layer.kernel_size
        output = (height - size + 1, width - size + 1, layer.filters)
        if min(output) < 1:
            raise UserError(f"{key}.kernel_size = {size}: larger than its input of {height}x{width}")
        kernel = (size, size, channels, layer.filters)
        parameters = _affine(name, kernel, size * size * channels, size * size * layer.filters)
        return LayerSpec(name, layer, shape, output, layer.filters, parameters)


def _affine(name: str, kernel: Shape, fan_in: int, fan_out: int) -> tuple[Parameter, ...]:
    return (
        Parameter(f"{name}/kernel", kernel, fan_in, fan_out, is_bias=False),
        Parameter(f"{name}/bias", kernel[-1:], fan_in, fan_out, is_bias=True),
    )
