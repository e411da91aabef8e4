"""Augmentation of a batch on the device."""

from typing import Any

from ...config.schema.train import AugmentConfig
from ..augmentation import sources
from .start import tf


def augmented(images: Any, augment: AugmentConfig, draws: Any) -> Any:
    """Return augmented images, uint8 (N, height, width, channels) as `images`; `draws`: see `models.augmentation`."""
    height, width, channels = images.shape[1:]
    rows = tf.reshape(tf.range(height, dtype=tf.int64), (1, height, 1))
    columns = tf.reshape(tf.range(width, dtype=tf.int64), (1, 1, width))
    positions, visible = sources(augment, draws, rows, columns, tf.bitwise.right_shift)
    chosen = tf.reshape(tf.where(visible, positions, tf.zeros_like(positions)), (-1, height * width))
    pixels = tf.gather(tf.reshape(images, (-1, height * width, channels)), chosen, batch_dims=1)
    return tf.where(visible[..., None], tf.reshape(pixels, tf.shape(images)), tf.zeros_like(images))
