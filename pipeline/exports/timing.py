"""How long an exported network takes, on one thread, from images in memory to logits in memory."""

from typing import Final

import numpy as np

from ..evaluation.latency import seconds
from .formats import Predict
from .result import Timing

_LARGE: Final = 256  # images
_SECONDS: Final = 0.6  # of measuring, for each size
_WARM_UP: Final = 5
_LEAST_CALLS: Final = 5
_MOST_CALLS: Final = 500


def measure(predict: Predict, images: np.ndarray) -> Timing:
    """Time a network on uint8 images (N, height, width, channels)."""
    batch = np.ascontiguousarray(np.resize(images, (_LARGE, *images.shape[1:])))
    one, many = (_median_seconds(predict, batch[:size]) for size in (1, _LARGE))
    return Timing(one_image_milliseconds=1000 * one, batch_milliseconds=1000 * many, images_per_second=_LARGE / many)


def _median_seconds(predict: Predict, batch: np.ndarray) -> float:
    for _ in range(_WARM_UP):
        predict(batch)
    taken: list[float] = []
    while len(taken) < _LEAST_CALLS or (sum(taken) < _SECONDS and len(taken) < _MOST_CALLS):
        taken.append(seconds(lambda: predict(batch)))
    return float(np.median(taken))
