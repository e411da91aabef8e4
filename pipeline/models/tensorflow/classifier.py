"""Training in TensorFlow: `GradientTape`, and one `tf.function` for the steps of an epoch."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any, Final

import numpy as np

from ...config.schema.model import BatchNorm, Conv
from ...config.schema.train import TrainConfig
from ...core.errors import UserError
from ...data.plan import EpochPlan
from ..architecture import Architecture
from ..backend import EpochResult, Probe, State, refusing_nondeterminism, unit_scale
from ..share import Part, Share, rows_here
from . import optimizers
from .augmentation import augmented
from .network import Network
from .peers import Peers
from .start import configure, gpu, peak_gpu_bytes, tf

_FUSED_FROM: Final = 1 << 17
"""Number of parameters from which on XLA fuses the update of a graph, as PyTorch's own kernel does in eager mode.

Operation by operation it goes through memory fourteen times, a sixth of a step of 2.8 million parameters and batch 64.
Below, the call of what is compiled takes longer.
"""


class TensorFlowClassifier:
    """The TensorFlow implementation of `backend.Classifier`."""

    def __init__(self, architecture: Architecture, train: TrainConfig, share: Share | None = None) -> None:
        self.architecture = architecture
        self.train = train
        self.device = configure(train)
        self._share = share
        self._peers = Peers(share) if share else None  # before the first operation
        self.execution = self._customary() if train.execution == "auto" else train.execution
        if self.execution == "compiled" and self._exchanges_in_gradients:
            raise UserError(
                f"train.execution = compiled: XLA cannot compile batch norm over train.world = {train.world} ranks in "
                "TensorFlow; allowed: auto, eager, graph"
            )
        self.predict_batch = architecture.predict_batch(train.precision)
        own_pooling = self.execution == "compiled" or self.device.type == "gpu"
        self._network = Network(architecture, train.precision, own_pooling=own_pooling, peers=self._peers)
        self._variables = [self._network.variable(parameter.name) for parameter in architecture.parameters]
        self._step = 0
        self._epochs: dict[int, Any] = {}
        self._images: Any = None
        self._labels: Any = None

    gpu = staticmethod(gpu)

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """See `Classifier.load_training_data`."""
        if self._images is not None and self._images.shape != images.shape:
            self._epochs.clear()  # traced for the shapes of the previous data
        self._images = tf.constant(images)
        self._labels = tf.constant(labels)

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """See `Classifier.compile`."""
        began = time.perf_counter()
        before = self.state()
        for size in batch_sizes:
            with refusing_nondeterminism("TensorFlow", tf.errors.UnimplementedError):
                self.train_epoch(EpochPlan.warm_up(self.train, size))
        self.restore(before)
        return time.perf_counter() - began

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """See `Classifier.train_epoch`."""
        began = time.perf_counter()
        coefficients = self._optimizer.coefficients(self._step, plan.learning_rate).astype(self.train.precision)
        steps, rows = plan.full_steps, plan.full_steps * plan.batch_size
        order = plan.order[:rows].reshape(steps, plan.batch_size)
        draws = plan.augmentation[:rows].reshape(steps, plan.batch_size, plan.augmentation.shape[1])
        full = order, draws, coefficients[:steps], plan.dropout_keys[:steps]
        last = plan.order[None, rows:], plan.augmentation[None, rows:], coefficients[steps:], plan.dropout_keys[steps:]
        results = [self._run(*arrays) for arrays in (full, last) if arrays[0].size]
        loss, correct = (np.concatenate([part[i].numpy() for part in results]) for i in (0, 1))
        self._step += plan.steps
        return EpochResult(loss.astype(np.float64), correct.astype(np.int64), time.perf_counter() - began)

    def iter_batches(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Classifier.iter_batches`."""
        batch = self._compiled(self._batch)
        for start in range(0, len(plan.order), plan.batch_size):
            rows, draws = (tf.constant(v[start : start + plan.batch_size]) for v in (plan.order, plan.augmentation))
            x, y = batch(rows, draws, self._images, self._labels)
            yield x.numpy(), y.numpy()

    def probe(self, plan: EpochPlan) -> Probe:
        """See `Classifier.probe`."""
        before = self.state()
        first = plan.segment(0, 1)
        here, part = rows_here(self._share, len(first.order))
        rows, draws, key = (
            tf.constant(v) for v in (first.order[here], first.augmentation[here], first.dropout_keys[0])
        )
        compute = self._compiled(partial(self._gradients, part))
        with self._exchanging(f"probe {len(first.order)}"):
            _, outputs, loss, gradients = compute(rows, draws, key, self._images, self._labels)
            gradients = self._peers.add_gradients(gradients) if self._peers else gradients
        self.restore(before)
        names = [parameter.name for parameter in self.architecture.parameters]
        arrays = {name: np.array(value.numpy()) for name, value in zip(names, gradients, strict=True)}
        return Probe(outputs.numpy(), float(loss.numpy()), arrays)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `Classifier.predict`."""
        size = self.predict_batch
        outputs = [self._forward(tf.constant(images[i : i + size])) for i in range(0, len(images), size)]
        return np.concatenate([output.numpy() for output in outputs])

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `Classifier.set_weights`."""
        for array in self.architecture.arrays:
            self._network.variable(array.name).assign(weights[array.name])

    def state(self) -> State:
        """See `Classifier.state`."""
        weights = {a.name: np.array(self._network.variable(a.name).numpy()) for a in self.architecture.arrays}
        names = [parameter.name for parameter in self.architecture.parameters]
        slots = {
            slot: {name: np.array(value.numpy()) for name, value in zip(names, variables, strict=True)}
            for slot, variables in self._optimizer.slots.items()
        }
        return State(weights, slots, self._step)

    def restore(self, state: State) -> None:
        """See `Classifier.restore`."""
        self.set_weights(state.weights)
        for position, parameter in enumerate(self.architecture.parameters):
            for slot, variables in self._optimizer.slots.items():
                variables[position].assign(state.slots[slot][parameter.name])
        self._step = state.step

    def peak_gpu_bytes(self) -> int | None:
        """See `Classifier.peak_gpu_bytes`."""
        return peak_gpu_bytes() if self.device.type == "gpu" else None

    def export(self) -> Any:
        """See `Classifier.export`."""
        return self._network.export()

    @cached_property
    def _optimizer(self) -> optimizers.Sgd | optimizers.Adam:
        return optimizers.create(self.train, self._variables)

    @cached_property
    def _update(self) -> Any:
        update = self._optimizer.apply
        large = self.architecture.parameter_count >= _FUSED_FROM
        apart = self.execution == "compiled" and self._peers is not None  # the step holds the exchange: XLA after it
        fused = apart or (self.execution == "graph" and large)
        return _traced(update, jit_compile=True) if fused else update

    def _customary(self) -> str:
        """Return what `auto` stands for: the fastest way on almost all networks, see docs/execution.md.

        XLA's convolutions are slower than TensorFlow's own on the CPU; all else it makes faster.
        """
        convolutions = any(isinstance(spec.layer, Conv) for spec in self.architecture.all_layers)
        slow = self.device.type == "cpu" and convolutions
        return "graph" if slow or self._exchanges_in_gradients else "compiled"

    @property
    def _exchanges_in_gradients(self) -> bool:
        """Whether the gradients hold an exchange with other ranks, which XLA cannot compile."""
        return bool(self._share) and any(isinstance(spec.layer, BatchNorm) for spec in self.architecture.all_layers)

    def _exchanging(self, name: str) -> AbstractContextManager[None]:
        return self._peers.step(name) if self._peers else nullcontext()

    @cached_property
    def _forward(self) -> Any:
        def forward(images: Any) -> Any:
            return self._network(self._scaled(images), training=False)

        shape = (None, *self.architecture.image_shape)
        eager = self.execution == "eager"
        return forward if eager else _traced(forward, input_signature=[tf.TensorSpec(shape, tf.uint8)])

    def _scaled(self, images: Any) -> Any:
        return tf.cast(images, self.train.precision) * unit_scale(self.train.precision)

    def _compiled(self, function: Any) -> Any:
        return function if self.execution == "eager" else _traced(function, jit_compile=self.execution == "compiled")

    def _run(self, order: np.ndarray, draws: np.ndarray, coefficients: np.ndarray, keys: np.ndarray) -> tuple[Any, Any]:
        size = order.shape[1]
        here, part = rows_here(self._share, size)
        order, draws = order[:, here], draws[:, here]
        if self.execution == "eager":
            data = self._images, self._labels
            arrays = (tf.constant(values) for values in (order, draws, coefficients, keys))
            steps = [self._take_step(part, r, d, c, k, *data) for r, d, c, k in zip(*arrays, strict=True)]
            return tf.stack([loss for loss, _ in steps]), tf.stack([correct for _, correct in steps])
        if size not in self._epochs:
            self._epochs[size] = self._epoch_function(order.shape[1], part)
        return self._epochs[size](order, draws, coefficients, keys, self._images, self._labels)  # type: ignore[no-any-return]

    def _epoch_function(self, batch_size: int, part: Part | None) -> Any:
        # XLA compiles the step and not the loop: it makes a step a sixth faster, and the loop three times slower.
        step = partial(self._take_step, part)
        if self._peers is None:
            step = self._compiled(step)

        def epoch(order: Any, draws: Any, coefficients: Any, keys: Any, images: Any, labels: Any) -> tuple[Any, Any]:
            steps = tf.shape(order)[0]
            losses = tf.TensorArray(self.train.precision, size=steps)
            corrects = tf.TensorArray(tf.int32, size=steps)

            def take(i: Any, losses: Any, corrects: Any) -> tuple[Any, Any, Any]:
                loss, correct = step(order[i], draws[i], coefficients[i], keys[i], images, labels)
                return i + 1, losses.write(i, loss), corrects.write(i, correct)

            _, losses, corrects = tf.while_loop(lambda i, *_: i < steps, take, (0, losses, corrects))
            return losses.stack(), corrects.stack()

        signature = [
            tf.TensorSpec((None, batch_size), tf.int64),
            tf.TensorSpec((None, batch_size, self.train.augment.draws), tf.int64),
            tf.TensorSpec((None, self._optimizer.scalars), self.train.precision),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec(self._images.shape, tf.uint8),
            tf.TensorSpec(self._labels.shape, tf.int64),
        ]
        return _traced(epoch, input_signature=signature)

    def _take_step(
        self, part: Part | None, rows: Any, draws: Any, coefficients: Any, key: Any, images: Any, labels: Any
    ) -> tuple[Any, Any]:
        compute = partial(self._gradients, part)
        if self._peers is None:
            y, outputs, loss, gradients = compute(rows, draws, key, images, labels)
        else:
            assert part
            with self._peers.step(f"batch {part.total}"):
                y, outputs, loss, gradients = self._compiled(compute)(rows, draws, key, images, labels)
                gradients = self._peers.add_gradients(gradients)
        self._update(optimizers.clipped(gradients, self.train.clip_norm), coefficients)
        correct = tf.reduce_sum(tf.cast(tf.equal(tf.argmax(outputs, axis=1), y), tf.int32))
        return loss, correct

    def _batch(self, rows: Any, draws: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        batch = tf.gather(images, rows)
        if self.train.augment.active:
            batch = augmented(batch, self.train.augment, draws)
        return self._scaled(batch), tf.gather(labels, rows)

    def _gradients(
        self, part: Part | None, rows: Any, draws: Any, key: Any, images: Any, labels: Any
    ) -> tuple[Any, Any, Any, list[Any]]:
        x, y = self._batch(rows, draws, images, labels)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            outputs = self._network(x, training=True, dropout_key=key, part=part)
            loss = self._loss(outputs, y, part)
        return y, outputs, loss, tape.gradient(loss, self._variables)

    def _loss(self, outputs: Any, labels: Any, part: Part | None) -> Any:
        smoothing = self.train.label_smoothing
        if not smoothing:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=outputs)
        else:
            classes = outputs.shape[-1]
            targets = tf.one_hot(labels, classes, dtype=outputs.dtype) * (1 - smoothing) + smoothing / classes
            losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
        return tf.reduce_sum(losses) / part.total if part else tf.reduce_mean(losses)


def _traced(function: Any, **options: Any) -> Any:
    """Return `function` as a graph, as it stands: nothing here needs AutoGraph, and its rewriting takes a second."""
    return tf.function(function, autograph=False, **options)
