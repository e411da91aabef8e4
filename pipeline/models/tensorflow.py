"""The TensorFlow door: Keras layers, `GradientTape`, a `tf.function` over the whole epoch.

The only module that imports TensorFlow.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..config.schema import AdamConfig, Conv, Dense
from ..data.plan import EpochPlan
from .architecture import Architecture, LayerSpec
from .classifier import Device, EpochResult, State

# Without an NVIDIA driver TensorFlow reports an error at every start; with one, its errors are worth reading.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/proc/driver/nvidia").exists() else "3")


@contextmanager
def _without_notices() -> Iterator[None]:
    """Drop the notices that TensorFlow writes to stderr before its log level applies; let everything else through."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            notices = ("I0000", "WARNING: All log messages before absl::InitializeLog()")
            sys.stderr.writelines(line for line in caught if not line.startswith(notices))


with _without_notices():
    import keras
    import tensorflow as tf

_PREDICT_BATCH = 512


class TensorFlowClassifier:
    """See `classifier.Classifier`."""

    slots = ("momentum", "velocity")

    def __init__(self, architecture: Architecture, train: TrainConfig) -> None:
        self.architecture = architecture
        self.train = train
        self.device = _configure(train)
        self.execution = "compiled" if train.execution == "auto" else train.execution
        self._network = _build(architecture, train.precision)
        self._variables = [self._variable(parameter.name) for parameter in architecture.parameters]
        self._step = 0
        self._epochs: dict[int, Any] = {}
        self._images: Any = None
        self._labels: Any = None

    def attach(self, images: np.ndarray, labels: np.ndarray) -> None:
        """See `Classifier.attach`."""
        self._images = tf.constant(images)
        self._labels = tf.constant(labels)
        self._epochs.clear()  # they were traced for the shapes of what was attached before

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """See `Classifier.compile`."""
        began = time.perf_counter()
        before = self.state()
        for size in batch_sizes:
            self.train_epoch(EpochPlan(np.zeros(size, np.int64), size, np.zeros(1)))
        self.restore(before)
        return time.perf_counter() - began

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """See `Classifier.train_epoch`."""
        began = time.perf_counter()
        coefficients = self._optimizer.coefficients(self._step, plan.learning_rate).astype(self.train.precision)
        whole = plan.full_steps * plan.batch_size
        full = (plan.order[:whole].reshape(plan.full_steps, plan.batch_size), coefficients[: plan.full_steps])
        partial = (plan.order[None, whole:], coefficients[plan.full_steps :])
        results = [self._run(order, scalars) for order, scalars in (full, partial) if order.size]
        loss, correct = (np.concatenate([part[i].numpy() for part in results]) for i in (0, 1))
        self._step += plan.steps
        return EpochResult(loss.astype(np.float64), correct.astype(np.int64), time.perf_counter() - began)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `Classifier.predict`."""
        starts = range(0, len(images), _PREDICT_BATCH)
        outputs = [self._forward(tf.constant(images[start : start + _PREDICT_BATCH])) for start in starts]
        return np.concatenate([output.numpy() for output in outputs])

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `Classifier.set_weights`."""
        for variable, parameter in zip(self._variables, self.architecture.parameters, strict=True):
            variable.assign(weights[parameter.name])

    def state(self) -> State:
        """See `Classifier.state`."""
        names = [parameter.name for parameter in self.architecture.parameters]

        def copy(variables: Iterable[Any]) -> dict[str, np.ndarray]:
            return {name: np.array(value.numpy()) for name, value in zip(names, variables, strict=True)}

        slots = {slot: copy(variables) for slot, variables in self._optimizer.slots.items()}
        return State(copy(self._variables), slots, self._step)

    def restore(self, state: State) -> None:
        """See `Classifier.restore`."""
        self.set_weights(state.weights)
        for position, parameter in enumerate(self.architecture.parameters):
            for slot, variables in self._optimizer.slots.items():
                variables[position].assign(state.slots[slot][parameter.name])
        self._step = state.step

    def export(self) -> Any:
        """See `Classifier.export`."""
        with tf.device("CPU:0"):
            copy = keras.models.clone_model(self._network)
        copy.set_weights(self._network.get_weights())
        return copy

    def _variable(self, name: str) -> Any:
        layer, role = name.split("/")
        return getattr(self._network.get_layer(layer), role).value

    @cached_property
    def _optimizer(self) -> "_Adam":
        return _Adam(self.train.optimizer, self._variables, self.slots)

    @cached_property
    def _forward(self) -> Any:
        def forward(images: Any) -> Any:
            return self._network(self._scaled(images), training=False)

        shape = (None, *self.architecture.image_shape)
        compiled = self.execution == "compiled"
        return tf.function(forward, input_signature=[tf.TensorSpec(shape, tf.uint8)]) if compiled else forward

    def _scaled(self, images: Any) -> Any:
        return tf.cast(images, self.train.precision) / 255

    def _run(self, order: np.ndarray, coefficients: np.ndarray) -> tuple[Any, Any]:
        if self.execution == "eager":
            rows = zip(tf.constant(order), tf.constant(coefficients), strict=True)
            steps = [self._take_step(batch, scalars, self._images, self._labels) for batch, scalars in rows]
            return tf.stack([loss for loss, _ in steps]), tf.stack([correct for _, correct in steps])
        size = order.shape[1]
        if size not in self._epochs:
            self._epochs[size] = self._epoch_function(size)
        return self._epochs[size](order, coefficients, self._images, self._labels)  # type: ignore[no-any-return]

    def _epoch_function(self, batch_size: int) -> Any:
        # XLA for the step, not for the loop: the step is a sixth faster with it, a loop inside it three times slower.
        step = tf.function(self._take_step, jit_compile=True)

        def epoch(order: Any, coefficients: Any, images: Any, labels: Any) -> tuple[Any, Any]:
            steps = tf.shape(order)[0]
            losses = tf.TensorArray(self.train.precision, size=steps)
            corrects = tf.TensorArray(tf.int32, size=steps)
            for i in tf.range(steps):
                loss, correct = step(order[i], coefficients[i], images, labels)
                losses = losses.write(i, loss)
                corrects = corrects.write(i, correct)
            return losses.stack(), corrects.stack()

        signature = [
            tf.TensorSpec((None, batch_size), tf.int64),
            tf.TensorSpec((None, self._optimizer.scalars), self.train.precision),
            tf.TensorSpec(self._images.shape, tf.uint8),
            tf.TensorSpec(self._labels.shape, tf.int64),
        ]
        return tf.function(epoch, input_signature=signature)

    def _take_step(self, batch: Any, coefficients: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        x = self._scaled(tf.gather(images, batch))
        y = tf.gather(labels, batch)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            logits = self._network(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        self._optimizer.apply(tape.gradient(loss, self._variables), coefficients)
        correct = tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, axis=1), y), tf.int32))
        return loss, correct


class _Adam:
    """Kingma & Ba 2015, Algorithm 1, in the form of torch.optim.Adam (keras.optimizers.Adam adds epsilon elsewhere)."""

    scalars = 2

    def __init__(self, config: AdamConfig, variables: list[Any], slots: Iterable[str]) -> None:
        self._config = config
        self._variables = variables
        self.slots = {slot: [tf.Variable(tf.zeros_like(variable)) for variable in variables] for slot in slots}

    def coefficients(self, steps_taken: int, learning_rate: np.ndarray) -> np.ndarray:
        """float64 (steps, 2): learning rate over 1 - beta_1^t, and sqrt(1 - beta_2^t)."""
        t = steps_taken + 1 + np.arange(len(learning_rate), dtype=np.float64)
        return np.stack([learning_rate / (1 - self._config.beta_1**t), np.sqrt(1 - self._config.beta_2**t)], axis=1)

    def apply(self, gradients: list[Any], coefficients: Any) -> None:
        """Update every variable and slot."""
        beta_1, beta_2, epsilon = self._config.beta_1, self._config.beta_2, self._config.epsilon
        slots = zip(self._variables, self.slots["momentum"], self.slots["velocity"], gradients, strict=True)
        for variable, momentum, velocity, gradient in slots:
            first = momentum.assign(beta_1 * momentum + (1 - beta_1) * gradient)
            second = velocity.assign(beta_2 * velocity + (1 - beta_2) * gradient * gradient)
            variable.assign_sub(coefficients[0] * first / (tf.sqrt(second) / coefficients[1] + epsilon))


def _build(architecture: Architecture, precision: str) -> Any:
    inputs = keras.Input(architecture.image_shape, dtype=precision, name="images")
    outputs = inputs
    for spec in architecture.layers:
        outputs = _layer(spec, precision)(outputs)
    return keras.Model(inputs, outputs, name="network")


def _layer(spec: LayerSpec, precision: str) -> Any:
    layer = spec.layer
    if isinstance(layer, Conv):
        return keras.layers.Conv2D(
            spec.units, layer.kernel_size, activation=layer.activation, name=spec.name, dtype=precision
        )
    if isinstance(layer, Dense):
        return keras.layers.Dense(spec.units, activation=layer.activation, name=spec.name, dtype=precision)
    return keras.layers.Flatten(name=spec.name, dtype=precision)


def _configure(train: TrainConfig) -> Device:
    """Threads, determinism and memory growth: settings of the process, fixed at TensorFlow's first operation."""
    threads = train.threads or os.cpu_count() or 1
    gpus = tf.config.list_physical_devices("GPU")
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    if gpus:
        return Device("gpu", tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"), threads)
    return Device("cpu", "cpu", threads)
