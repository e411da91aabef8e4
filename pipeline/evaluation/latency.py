"""How long a network takes to predict."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..models.backend import Classifier

_WARM_UP_CALLS = 10
_CALLS = 200
_MOST_IMAGES = 8192


@dataclass(frozen=True)
class Inference:
    """Inference speed from uint8 images in memory to outputs in memory."""

    latency_p50_milliseconds: float
    """Median time of one image."""
    latency_p95_milliseconds: float
    """95th percentile of the same."""
    images_per_second: float
    """Throughput in batches of `Classifier.predict_batch`, the better of two runs."""


def seconds(function: Callable[[], object]) -> float:
    """Return the wall time of one call in seconds."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def latencies(classifier: Classifier, images: np.ndarray, calls: int) -> list[float]:
    """Return the seconds of each of `calls` predictions of one image: `images` (N, height, width, channels) in turn."""
    singles = [np.ascontiguousarray(images[i % len(images)][None]) for i in range(calls)]
    return [seconds(lambda image=image: classifier.predict(image)) for image in singles]  # type: ignore[misc]


def inference(classifier: Classifier, images: np.ndarray) -> Inference:
    """Measure a classifier on uint8 images (N, height, width, channels), of which it uses at most 8,192.

    The classifier must have predicted them before, so that compilation and warm-up are not timed.
    """
    subset = np.ascontiguousarray(images[:_MOST_IMAGES])
    taken = min(seconds(lambda: classifier.predict(subset)) for _ in range(2))
    latencies(classifier, images, _WARM_UP_CALLS)
    calls = np.array(latencies(classifier, images, _CALLS)) * 1000
    p50, p95 = np.percentile(calls, (50, 95))
    return Inference(float(p50), float(p95), len(subset) / taken)
