"""Augmentation of a batch on the device."""

import torch
from torch import Tensor

from ...config.schema.train import AugmentConfig
from ..augmentation import sources


def augmented(images: Tensor, augment: AugmentConfig, draws: Tensor) -> Tensor:
    """Return augmented images, uint8 (N, height, width, channels) as `images`; `draws`: see `models.augmentation`."""
    count, height, width, channels = images.shape
    rows = torch.arange(height, device=images.device).view(1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, -1)
    positions, visible = sources(augment, draws, rows, columns, torch.bitwise_right_shift)
    chosen = torch.where(visible, positions, 0).view(count, -1, 1).expand(-1, -1, channels)
    pixels = images.view(count, -1, channels).gather(1, chosen).view_as(images)
    return pixels.mul_(visible.unsqueeze(-1))
