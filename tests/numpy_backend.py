"""A third framework, made of `reference`: NumPy alone. What the registry and everything behind it is tried with."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import reference

from pipeline.config.schema.train import TrainConfig
from pipeline.core.frameworks import Framework, SeriesStyle
from pipeline.data.plan import EpochPlan
from pipeline.models.architecture import Architecture
from pipeline.models.backend import Device, EpochResult, Probe, State, unit_scale

NUMPY = Framework(
    name="numpy",
    style=SeriesStyle("NumPy", "#009E73", 2.4),
    backend="numpy_backend:NumPyClassifier",
    packages=("numpy",),
    flavour=None,
)


class NumPyClassifier:
    """See `backend.Classifier`. Slow: each derivative is a forward pass of its own."""

    def __init__(self, architecture: Architecture, train: TrainConfig) -> None:
        self.architecture, self.train = architecture, train
        self.execution = "eager"
        self.predict_batch = architecture.predict_batch(train.precision)
        self.device = Device("cpu", "cpu", train.threads or 1)
        self._state = State({}, {}, 0)

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """See `Classifier.load_training_data`."""
        self._images, self._labels = images, labels

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """There is nothing to compile."""
        return 0.0

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """See `Classifier.train_epoch`."""
        began, losses, corrects = time.perf_counter(), [], []
        for (x, y), rate, key in zip(self._batches(plan), plan.learning_rate, plan.dropout_keys, strict=True):
            step = reference.step(self.architecture, self.train, self._state, x, y, float(rate), int(key))
            losses.append(step[0])
            corrects.append(step[1])
            self.restore(step[2])
        return EpochResult(np.array(losses), np.array(corrects), time.perf_counter() - began)

    def iter_batches(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Classifier.iter_batches`."""
        dtype = np.dtype(self.train.precision)
        for images, labels in self._batches(plan):
            yield images.astype(dtype) * dtype.type(unit_scale(self.train.precision)), labels

    def probe(self, plan: EpochPlan) -> Probe:
        """See `Classifier.probe`."""
        x, y = next(self._batches(plan))
        weights, key, smoothing = self._state.weights, int(plan.dropout_keys[0]), self.train.label_smoothing
        found, _ = reference.outputs(self.architecture, weights, x, key)
        slopes = reference.gradients(self.architecture, weights, x, y, key, smoothing)
        return Probe(found, float(reference.loss(found, y, smoothing)), slopes)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `Classifier.predict`."""
        found, _ = reference.outputs(self.architecture, self._state.weights, images)
        return found.astype(self.train.precision)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `Classifier.set_weights`."""
        self.restore(State(dict(weights), self._state.slots, self._state.step))

    def state(self) -> State:
        """See `Classifier.state`."""
        return State(*(_copy(part) for part in (self._state.weights, self._state.slots)), self._state.step)

    def restore(self, state: State) -> None:
        """See `Classifier.restore`."""
        self._state = State(
            self._rounded(state.weights), {k: self._rounded(v) for k, v in state.slots.items()}, state.step
        )

    def export(self) -> Any:
        """See `Classifier.export`; MLflow has no flavour for it."""
        raise NotImplementedError

    @staticmethod
    def gpu() -> tuple[str, str]:
        """See `Classifier.gpu`."""
        return "", "NumPy has none"

    def peak_gpu_bytes(self) -> int | None:
        """See `Classifier.peak_gpu_bytes`."""
        return None

    def _batches(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images uint8 as they are augmented, labels int64."""
        for start in range(0, len(plan.order), plan.batch_size):
            rows, drawn = (v[start : start + plan.batch_size] for v in (plan.order, plan.augmentation))
            images = self._images[rows]
            yield (
                reference.augmented(images, self.train.augment, drawn) if self.train.augment.active else images,
                self._labels[rows],
            )

    def _rounded(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.array(value, self.train.precision) for name, value in values.items()}


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(v) if isinstance(v, Mapping) else v.copy() for name, v in values.items()}
