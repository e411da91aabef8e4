"""The update rules of torch.optim on TensorFlow variables; Keras optimisers of the same names differ from them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ...config.schema.train import AdamConfig, AdamWConfig, SgdConfig, TrainConfig
from ..backend import slots_of
from .start import tf


def create(train: TrainConfig, variables: list[Any]) -> "Sgd | Adam":
    """Return the optimiser that the configuration names, over these variables, with all slots zero."""
    slots = {slot: [tf.Variable(tf.zeros_like(v)) for v in variables] for slot in slots_of(train)}
    if isinstance(train.optimizer, SgdConfig):
        return Sgd(train.optimizer, variables, slots)
    return Adam(train.optimizer, variables, slots)


def clipped(gradients: Iterable[Any], norm: float | None) -> list[Any]:
    """Return the gradients times min(1, norm / their global 2-norm) (Pascanu et al. 2013, Algorithm 1).

    `norm` None: unchanged.
    """
    gradients = list(gradients)
    if norm is None:
        return gradients
    global_norm = tf.sqrt(tf.add_n([tf.reduce_sum(gradient * gradient) for gradient in gradients]))
    scale = tf.minimum(norm / global_norm, 1)
    return [gradient * scale for gradient in gradients]


class Sgd:
    """Gradient descent, see `config.schema.train.SgdConfig`."""

    scalars = 1
    """Number of coefficients of a step."""

    def __init__(self, config: SgdConfig, variables: list[Any], slots: dict[str, list[Any]]) -> None:
        self._config = config
        self._variables = variables
        self.slots = slots

    def coefficients(self, steps_taken: int, learning_rate: np.ndarray) -> np.ndarray:
        """Return float64 (steps, 1): the learning rate of each step."""
        return learning_rate[:, None]

    def apply(self, gradients: list[Any], coefficients: Any) -> None:
        """Update every variable and slot."""
        momentum = self._config.momentum
        velocities = self.slots.get("momentum", [None] * len(gradients))
        for variable, velocity, gradient in zip(self._variables, velocities, gradients, strict=True):
            move = gradient
            if velocity is not None:
                new = velocity.assign(momentum * velocity + gradient)
                move = gradient + momentum * new if self._config.nesterov else new
            variable.assign_sub(coefficients[0] * move)


class Adam:
    """Adam and AdamW, see `config.schema.train`; keras.optimizers.Adam adds epsilon before the bias correction."""

    scalars = 3
    """Number of coefficients of a step."""

    def __init__(self, config: AdamConfig | AdamWConfig, variables: list[Any], slots: dict[str, list[Any]]) -> None:
        self._config = config
        self._variables = variables
        self.slots = slots
        self._decay = config.weight_decay if isinstance(config, AdamWConfig) else 0.0

    def coefficients(self, steps_taken: int, learning_rate: np.ndarray) -> np.ndarray:
        """Return float64 (steps, 3): learning rate / (1 - beta_1^t), sqrt(1 - beta_2^t), 1 - learning rate * decay.

        t counts the steps of the training from 1: `steps_taken` + 1 for the first of these.
        """
        t = steps_taken + 1 + np.arange(len(learning_rate), dtype=np.float64)
        first = learning_rate / (1 - self._config.beta_1**t)
        second = np.sqrt(1 - self._config.beta_2**t)
        return np.stack([first, second, 1 - learning_rate * self._decay], axis=1)

    def apply(self, gradients: list[Any], coefficients: Any) -> None:
        """Update every variable and slot."""
        beta_1, beta_2, epsilon = self._config.beta_1, self._config.beta_2, self._config.epsilon
        slots = zip(self._variables, self.slots["momentum"], self.slots["velocity"], gradients, strict=True)
        for variable, momentum, velocity, gradient in slots:
            first = momentum.assign(beta_1 * momentum + (1 - beta_1) * gradient)
            second = velocity.assign(beta_2 * velocity + (1 - beta_2) * gradient * gradient)
            move = coefficients[0] * first / (tf.sqrt(second) / coefficients[1] + epsilon)
            variable.assign((variable * coefficients[2] if self._decay else variable) - move)
