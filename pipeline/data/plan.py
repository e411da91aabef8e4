"""Plan an epoch: draw everything random in NumPy, so that every framework trains on the same."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..config.schema.train import AugmentConfig, CosineSchedule, StepSchedule, TrainConfig
from ..core.errors import UserError

# Each kind of draw has a stream of its own, so that one never changes another.
ORDER_STREAM: Final = 1
WEIGHTS_STREAM: Final = 2
DROPOUT_STREAM: Final = 3
AUGMENTATION_STREAM: Final = 4

_NO_DRAWS: Any = None  # replaced in __post_init__: its shape depends on the number of examples


@dataclass(frozen=True)
class EpochPlan:
    """The steps of one epoch, or a segment of them.

    Raises ValueError if the lengths of the arrays do not fit together.
    """

    order: np.ndarray
    """int64 (N,): positions in the training split, in the order of training."""
    batch_size: int
    """Examples of a step; the last step may have fewer."""
    learning_rate: np.ndarray
    """float64 (steps,)."""
    dropout_keys: np.ndarray
    """int64 (steps,) in [0, 2^32), see `models.dropout`."""
    augmentation: np.ndarray = _NO_DRAWS
    """int64 (N, 5), see `models.augmentation`; (N, 0) without augmentation."""

    def __post_init__(self) -> None:
        if self.augmentation is None:
            object.__setattr__(self, "augmentation", np.zeros((len(self.order), 0), np.int64))
        if len(self.augmentation) != len(self.order):
            raise ValueError(f"{len(self.augmentation)} augmentations, {len(self.order)} examples")
        for name, values in (("learning rates", self.learning_rate), ("dropout keys", self.dropout_keys)):
            if len(values) != -(-len(self.order) // self.batch_size):
                raise ValueError(f"{len(values)} {name}, {len(self.order)} examples in batches of {self.batch_size}")

    @classmethod
    def warm_up(cls, train: TrainConfig, size: int) -> "EpochPlan":
        """Return a plan of one step on `size` copies of the first example, with a learning rate of 0."""
        draws = np.zeros((size, train.augment.draws), np.int64)
        return cls(np.zeros(size, np.int64), size, np.zeros(1), np.zeros(1, np.int64), draws)

    @property
    def steps(self) -> int:
        """Number of optimiser steps, the partial last one included."""
        return len(self.learning_rate)

    @property
    def full_steps(self) -> int:
        """Number of optimiser steps with a full batch."""
        return len(self.order) // self.batch_size

    @property
    def batch_sizes(self) -> np.ndarray:
        """int64 (steps,): examples in each step."""
        sizes = np.full(self.steps, self.batch_size, np.int64)
        if self.steps > self.full_steps:
            sizes[-1] = len(self.order) - self.full_steps * self.batch_size
        return sizes

    def segment(self, start: int, stop: int) -> "EpochPlan":
        """Return steps `start` to `stop`, exclusive; training on all segments in turn is training on the whole plan."""
        examples, steps = slice(start * self.batch_size, stop * self.batch_size), slice(start, stop)
        return EpochPlan(
            self.order[examples],
            self.batch_size,
            self.learning_rate[steps],
            self.dropout_keys[steps],
            self.augmentation[examples],
        )


def draw_epoch(train: TrainConfig, *, examples: int, seed: int, epoch: int) -> EpochPlan:
    """Draw the plan of epoch `epoch` (0, 1, ...), with a permutation of `examples` positions.

    The order is a function of seed, epoch and number of examples alone; so are the augmentation and the dropout keys,
    given their settings and the batch size.
    """
    order = np.random.default_rng([seed, ORDER_STREAM, epoch]).permutation(examples).astype(np.int64)
    steps = -(-examples // train.batch_size)
    keys = np.random.default_rng([seed, DROPOUT_STREAM, epoch]).integers(0, 2**32, steps)
    rates = learning_rates(train, steps)[epoch * steps : (epoch + 1) * steps]
    return EpochPlan(order, train.batch_size, rates, keys, _draw_augmentation(train.augment, examples, seed, epoch))


def _draw_augmentation(augment: AugmentConfig, examples: int, seed: int, epoch: int) -> np.ndarray:
    """Draw int64 (examples, 5 or 0), each kind from a stream of its own: switching one on does not change another."""
    if not augment.active:
        return np.zeros((examples, 0), np.int64)

    def draw(kind: int, low: int, high: int, count: int) -> np.ndarray:
        generator = np.random.default_rng([seed, AUGMENTATION_STREAM, epoch, kind])
        return generator.integers(low, high, (examples, count))

    shifts = draw(0, -augment.pad_and_crop, augment.pad_and_crop + 1, 2)
    return np.hstack([shifts, draw(1, 0, 2, 1) * augment.flip, draw(2, 0, 2**32, 2)])


def require_visible(augment: AugmentConfig, image_shape: tuple[int, int, int]) -> None:
    """Raise `UserError` if augmentation could leave nothing of an image of this shape (height, width, channels)."""
    shorter_side = min(image_shape[:2])
    for key, value in (("pad_and_crop", augment.pad_and_crop), ("cutout", augment.cutout)):
        if value >= shorter_side:
            raise UserError(
                f"train.augment.{key} = {value}: leaves nothing of images of {image_shape[0]}x{image_shape[1]} pixels; "
                f"allowed: 0 to {shorter_side - 1}"
            )


def learning_rates(train: TrainConfig, steps_per_epoch: int) -> np.ndarray:
    """Return the learning rate of every step of the training, float64 (epochs * steps_per_epoch,).

    Sources of the formulas: `config.schema.train`.
    """
    schedule, total = train.schedule, train.epochs * steps_per_epoch
    t = np.arange(total)
    factor: np.ndarray
    if isinstance(schedule, CosineSchedule):
        progress = np.maximum(t - schedule.warmup_steps, 0) / max(total - schedule.warmup_steps, 1)
        factor = schedule.final_fraction + (1 - schedule.final_fraction) * (1 + np.cos(np.pi * progress)) / 2
    elif isinstance(schedule, StepSchedule):
        factor = schedule.factor ** (t // steps_per_epoch // schedule.every_epochs)
    else:
        factor = np.ones(total)
    warm_up = np.minimum((t + 1) / max(schedule.warmup_steps, 1), 1)
    return np.asarray(train.optimizer.learning_rate * warm_up * factor)
