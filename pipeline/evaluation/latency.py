"""How long a network takes to answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..models.backend import Classifier

_WARM_UP = 10
_CALLS = 200
_MOST_IMAGES = 8192


@dataclass(frozen=True)
class Inference:
    """From uint8 images in memory to outputs in memory."""

    latency_p50_milliseconds: float
    """Of one image."""
    latency_p95_milliseconds: float
    images_per_second: float
    """In batches of 512."""


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def latencies(classifier: Classifier, images: np.ndarray, calls: int) -> list[float]:
    """Seconds of each of so many calls with one image, of `images` (N, height, width, channels) in turn."""
    singles = [np.ascontiguousarray(images[i % len(images)][None]) for i in range(calls)]
    return [seconds(lambda image=image: classifier.predict(image)) for image in singles]  # type: ignore[misc]


def inference(classifier: Classifier, images: np.ndarray) -> Inference:
    """Measure a classifier on uint8 images (N, height, width, channels) that it has predicted before."""
    some = np.ascontiguousarray(images[:_MOST_IMAGES])
    taken = min(seconds(lambda: classifier.predict(some)) for _ in range(2))
    latencies(classifier, images, _WARM_UP)
    calls = np.array(latencies(classifier, images, _CALLS)) * 1000
    p50, p95 = np.percentile(calls, (50, 95))
    return Inference(float(p50), float(p95), len(some) / taken)
