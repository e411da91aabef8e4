"""ONNX written from the declared network and its weights: no framework is imported, and the bytes are always the same.

Input `images`: uint8 (batch, height, width, channels). Outputs, float32 (batch, classes): `logits`, `probabilities`.
Inside, images are channels first, as ONNX's operators want them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..config.schema.model import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Normalise,
    Residual,
)
from ..models.architecture import Architecture, LayerSpec
from ..models.backend import unit_scale

OPSET: Final = 18  # the newest that quantisation and every runtime of the last two years take
_IR_VERSION: Final = 9
_TO_CHANNELS_FIRST: Final = (0, 3, 1, 2)
_TO_CHANNELS_LAST: Final = (0, 2, 3, 1)


def model_of(
    architecture: Architecture, weights: Mapping[str, np.ndarray], facts: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the network as an ONNX model. `facts`: kept in its metadata. Weights become float32."""
    graph = _Graph({name: np.asarray(value, np.float32) for name, value in weights.items()})
    x = graph.add("Cast", ["images"], to=TensorProto.FLOAT)
    x = graph.add("Mul", [x, graph.constant("unit_scale", np.float32(unit_scale("float32")))])
    x = graph.add("Transpose", [x], perm=_TO_CHANNELS_FIRST)
    x = graph.apply_all(architecture.layers, x)
    graph.nodes.append(helper.make_node("Identity", [x], ["logits"], name="logits"))
    graph.nodes.append(helper.make_node("Softmax", [x], ["probabilities"], name="probabilities", axis=1))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *architecture.image_shape])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", architecture.classes])
        for name in ("logits", "probabilities")
    ]
    made = helper.make_graph(graph.nodes, architecture.model.name, [images], outputs, graph.constants)
    model = helper.make_model(made, producer_name="pipeline", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = _IR_VERSION
    helper.set_model_props(model, dict(sorted(facts.items())))
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """The nodes and constants of a graph that is being written."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add an operator; return the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        """Add a constant under a name of its own; return the name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def apply_all(self, specs: Sequence[LayerSpec], x: str) -> str:
        """Add layers one after another; return the name of the last output."""
        for spec in specs:
            x = self._apply(spec, x)
        return x

    def _apply(self, spec: LayerSpec, x: str) -> str:
        layer = spec.layer
        match layer:
            case Conv():
                kernel = self.constant(f"{spec.name}/kernel", self._array(spec, "kernel").transpose(3, 2, 0, 1))
                window = {"kernel_shape": [layer.kernel_size] * 2, "strides": [layer.stride] * 2, "pads": _pads(spec)}
                return self._activate(self.add("Conv", [x, kernel, *self._bias(spec)], **window), layer.activation)
            case Dense():
                kernel = self.constant(f"{spec.name}/kernel", self._array(spec, "kernel"))
                return self._activate(self.add("Gemm", [x, kernel, *self._bias(spec)]), layer.activation)
            case BatchNorm():
                roles = ("scale", "offset", "mean", "variance")
                arrays = [self.constant(f"{spec.name}/{role}", self._array(spec, role)) for role in roles]
                return self._activate(
                    self.add("BatchNormalization", [x, *arrays], epsilon=layer.epsilon), layer.activation
                )
            case Normalise():
                shape = (1, -1, 1, 1)
                mean = self.constant(f"{spec.name}/mean", self._array(spec, "mean").reshape(shape))
                deviation = np.sqrt(self._array(spec, "variance")).reshape(shape)
                centred = self.add("Sub", [x, mean])
                return self.add("Div", [centred, self.constant(f"{spec.name}/deviation", deviation)])
            case MaxPool() | AveragePool():
                stride = layer.stride or layer.size
                window = {"kernel_shape": [layer.size] * 2, "strides": [stride] * 2, "pads": _pads(spec)}
                if isinstance(layer, MaxPool):
                    return self.add("MaxPool", [x], **window)
                return self.add("AveragePool", [x], count_include_pad=0, **window)
            case GlobalAveragePool():
                return self.add("Flatten", [self.add("GlobalAveragePool", [x])], axis=1)
            case Dropout():
                return x
            case Flatten():
                image = len(spec.input_shape) == 3
                return self.add("Flatten", [self.add("Transpose", [x], perm=_TO_CHANNELS_LAST) if image else x], axis=1)
            case Residual():
                branch, shortcut = self.apply_all(spec.branch, x), self.apply_all(spec.shortcut, x)
                return self._activate(self.add("Add", [branch, shortcut]), layer.activation)

    def _array(self, spec: LayerSpec, role: str) -> np.ndarray:
        return self._weights[f"{spec.name}/{role}"]

    def _bias(self, spec: LayerSpec) -> list[str]:
        name = f"{spec.name}/bias"
        return [self.constant(name, self._weights[name])] if name in self._weights else []

    def _activate(self, x: str, activation: str | None) -> str:
        match activation:
            case "relu":
                return self.add("Relu", [x])
            case "silu":
                return self.add("Mul", [x, self.add("Sigmoid", [x])])
            case "tanh":
                return self.add("Tanh", [x])
            case "softmax":
                return self.add("Softmax", [x], axis=1)
            case _:
                return x


def _pads(spec: LayerSpec) -> list[int]:
    (top, bottom), (left, right) = spec.padding
    return [top, left, bottom, right]
