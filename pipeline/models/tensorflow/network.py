"""The declared network in Keras layers: one walk over the layers for training, another for the exported model."""

from typing import Any

from ...config.schema.model import (
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
from ..architecture import Architecture, LayerSpec
from ..dropout import keep
from ..share import Part
from .peers import Peers
from .start import keras, tf

_ROLES = {
    "kernel": "kernel",
    "bias": "bias",
    "scale": "gamma",
    "offset": "beta",
    "mean": "moving_mean",
    "variance": "moving_variance",
}
_NORMALISATION_ROLES = {"mean": "adapt_mean", "variance": "adapt_variance"}


class Network:
    """A function from images (N, height, width, channels) in [0, 1] to outputs (N, classes)."""

    def __init__(
        self, architecture: Architecture, precision: str, *, own_pooling: bool, peers: Peers | None = None
    ) -> None:
        """`own_pooling`: whether training needs a max pooling whose gradient XLA and GPUs compute deterministically.

        `peers`: the other ranks, if a batch is trained on by several.
        """
        self.architecture = architecture
        self._peers = peers
        self._own_pooling = own_pooling
        self.precision = precision
        self._layers = {spec.name: _keras_layer(spec, precision) for spec in architecture.all_layers}
        for spec in architecture.all_layers:
            if spec.parameters:
                self._layers[spec.name].build((None, *spec.input_shape))

    def variable(self, name: str) -> Any:
        """Return the TensorFlow variable of an array of the architecture, named `<layer>/<role>`."""
        layer, role = name.split("/")
        return _keras_variable(self._layers[layer], role).value

    def __call__(self, images: Any, *, training: bool, dropout_key: Any = None, part: Part | None = None) -> Any:
        """Return outputs (N, classes). `dropout_key`: int64 scalar, needed in training by a network with dropout.

        `part`: of which batch the images are; None: they are all of it.
        """
        x = images
        for spec in self.architecture.layers:
            x = self._apply(spec, x, training, dropout_key, part)
        return x

    def _apply(self, spec: LayerSpec, x: Any, training: bool, key: Any, part: Part | None) -> Any:
        layer, keras_layer = spec.layer, self._layers[spec.name]
        if isinstance(layer, Dropout):
            return _dropout(x, key, spec.dropout_number, layer.rate, part.first if part else 0) if training else x
        if isinstance(layer, BatchNorm):
            moments = self._peers.moments(x, part) if self._peers and part and training else None
            return keras.activations.get(layer.activation)(_batch_norm(x, keras_layer, layer, training, moments))
        if isinstance(layer, Normalise):
            return (x - keras_layer.adapt_mean.value) / tf.sqrt(keras_layer.adapt_variance.value)
        if isinstance(layer, MaxPool):
            return _max_pool_of_slices(x, spec, layer) if self._own_pooling and training else _max_pool(x, layer)
        if not isinstance(layer, Residual):
            return keras_layer(x)
        branch, shortcut = x, x
        for inner in spec.branch:
            branch = self._apply(inner, branch, training, key, part)
        for inner in spec.shortcut:
            shortcut = self._apply(inner, shortcut, training, key, part)
        return keras.activations.get(layer.activation)(branch + shortcut)

    def export(self) -> Any:
        """Return a `keras.Model` on the CPU, made of built-in Keras layers only, with copies of the weights."""
        with tf.device("CPU:0"):
            layers = {spec.name: _keras_layer(spec, self.precision) for spec in self.architecture.all_layers}
            inputs = keras.Input(self.architecture.image_shape, dtype=self.precision, name="images")
            outputs = inputs
            for spec in self.architecture.layers:
                outputs = _connect(spec, outputs, layers)
            model = keras.Model(inputs, outputs, name="network")
        for array in self.architecture.arrays:
            _keras_variable(layers[array.layer], array.role).assign(self.variable(array.name).numpy())
        for layer in layers.values():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # computes with the values assigned above
        return model


def _keras_variable(layer: Any, role: str) -> Any:
    """Return the variable of a Keras layer that has this role."""
    return getattr(layer, (_NORMALISATION_ROLES if isinstance(layer, keras.layers.Normalization) else _ROLES)[role])


def _connect(spec: LayerSpec, x: Any, layers: dict[str, Any]) -> Any:
    layer = spec.layer
    if not isinstance(layer, Residual):
        x = layers[spec.name](x)
        if isinstance(layer, BatchNorm) and layer.activation:
            x = keras.layers.Activation(layer.activation)(x)
        return x
    branch, shortcut = x, x
    for inner in spec.branch:
        branch = _connect(inner, branch, layers)
    for inner in spec.shortcut:
        shortcut = _connect(inner, shortcut, layers)
    x = layers[spec.name]([branch, shortcut])
    return keras.layers.Activation(layer.activation)(x) if layer.activation else x


def _keras_layer(spec: LayerSpec, precision: str) -> Any:
    layer = spec.layer
    common = {"name": spec.name, "dtype": precision}
    match layer:
        case Conv():
            return keras.layers.Conv2D(
                layer.filters,
                layer.kernel_size,
                strides=layer.stride,
                padding=layer.padding,
                use_bias=layer.bias,
                activation=layer.activation,
                **common,
            )
        case Dense():
            units = spec.output_shape[0]
            return keras.layers.Dense(units, use_bias=layer.bias, activation=layer.activation, **common)
        case Normalise():
            return keras.layers.Normalization(**common)
        case BatchNorm():
            return keras.layers.BatchNormalization(momentum=1 - layer.momentum, epsilon=layer.epsilon, **common)
        case MaxPool():
            return keras.layers.MaxPooling2D(layer.size, layer.stride, padding=layer.padding, **common)
        case AveragePool():
            return keras.layers.AveragePooling2D(layer.size, layer.stride, padding=layer.padding, **common)
        case GlobalAveragePool():
            return keras.layers.GlobalAveragePooling2D(**common)
        case Dropout():
            return keras.layers.Dropout(layer.rate, **common)
        case Flatten():
            return keras.layers.Flatten(**common)
        case Residual():
            return keras.layers.Add(**common)


def _batch_norm(x: Any, layer: Any, config: BatchNorm, training: bool, moments: tuple[Any, Any, int] | None) -> Any:
    """Apply batch norm as PyTorch does. `moments`: those of the batch, if `x` is a part of it: mean, variance, count.

    The call of the Keras layer differs: its running variance is the biased one, and it rounds epsilon to float32.
    """
    mean, variance = layer.moving_mean.value, layer.moving_variance.value
    if training:
        if moments is None:
            mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
            count = tf.cast(tf.size(x) / x.shape[-1], x.dtype)
        else:
            mean, variance, count = moments
        unbiased = variance * count / (count - 1)
        for running, batch in ((layer.moving_mean.value, mean), (layer.moving_variance.value, unbiased)):
            running.assign((1 - config.momentum) * running + config.momentum * batch)
    return tf.nn.batch_normalization(x, mean, variance, layer.beta.value, layer.gamma.value, config.epsilon)


def _max_pool(x: Any, layer: MaxPool) -> Any:
    """Apply max pooling, with NaN everywhere if the input has one.

    TensorFlow's operator takes NaN for the smallest number, so a training that has diverged would go on unseen.
    """
    pooled = tf.nn.max_pool2d(x, layer.size, layer.stride or layer.size, layer.padding.upper())
    diverged = tf.math.is_nan(tf.stop_gradient(tf.reduce_sum(x)))
    return pooled + tf.where(diverged, tf.constant(float("nan"), x.dtype), tf.zeros((), x.dtype))


def _max_pool_of_slices(x: Any, spec: LayerSpec, layer: MaxPool) -> Any:
    """Apply max pooling whose gradient goes to the first of equal values, as that of PyTorch and of TensorFlow's CPU.

    The gradient of TensorFlow's operator has no deterministic XLA kernel. Only XLA makes this form fast.
    """
    size, stride = layer.size, layer.stride or layer.size
    padded = tf.pad(x, [[0, 0], *spec.padding, [0, 0]], constant_values=x.dtype.min)
    rows, columns, _ = spec.output_shape
    largest = None
    for top in range(size):
        for left in range(size):
            ends = (top + (rows - 1) * stride + 1, left + (columns - 1) * stride + 1)
            corner = padded[:, top : ends[0] : stride, left : ends[1] : stride, :]
            is_larger = largest is not None and ((corner > largest) | tf.math.is_nan(corner))
            largest = corner if largest is None else tf.where(is_larger, corner, largest)
    return largest


def _dropout(x: Any, key: Any, number: int, rate: float, first: int) -> Any:
    """Apply dropout; `first`: position of the first example in its batch."""
    size = tf.size(x, out_type=tf.int64)
    start = first * (size // tf.shape(x, out_type=tf.int64)[0]) if first else tf.zeros((), tf.int64)
    positions = tf.reshape(start + tf.range(size), tf.shape(x))
    mask = keep(positions, key, number, rate, tf.bitwise.right_shift)
    return tf.where(mask, x / (1 - rate), tf.zeros_like(x))
