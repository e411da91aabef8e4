"""Trained networks on a whole split: what they predict, how good that is, how long they take to answer."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from ..core.progress import steps
from ..data.dataset import Split
from ..data.loader import pieces_of
from ..models.backend import Classifier
from . import metrics
from .latency import Inference, inference

_REPORTED: Final = 1024  # images between two movements of the bar


@dataclass(frozen=True)
class EvaluatedModel:
    """One seed's network on a split."""

    seed: int
    outputs: np.ndarray
    """float32 (N, classes), of the last layer."""
    scores: metrics.Scores
    inference: Inference

    @property
    def tracked(self) -> dict[str, float]:
        """What goes to MLflow, under the names that it has there."""
        return {f"test/{name}": value for name, value in asdict(self.scores).items()} | {
            "test/error_percent": 100 * (1 - self.scores.accuracy),  # bars start at 0: accuracies all look alike
            "time/inference_p50_milliseconds": self.inference.latency_p50_milliseconds,
            "time/inference_p95_milliseconds": self.inference.latency_p95_milliseconds,
            "throughput/inference_images_per_second": self.inference.images_per_second,
        }


def evaluate_models(
    title: str, seeds: Sequence[int], open_model: Callable[[int], Classifier], split: Split, calibration_bins: int
) -> list[EvaluatedModel]:
    """Evaluate the network of each seed, which `open_model` opens.

    Raises `DataChangedError` where the images were written to meanwhile.
    """
    evaluated = []
    with steps(f"evaluate {title}", len(split.images) * len(seeds), "images") as progress:
        for seed in seeds:
            classifier, parts = open_model(seed), []
            for piece in pieces_of(split.images, _REPORTED) if progress.watched else pieces_of(split.images):
                parts.append(classifier.predict(piece))
                progress(len(piece))
            outputs = np.concatenate(parts)
            scores = metrics.score(outputs, split.labels, calibration_bins)
            speed = inference(classifier, next(pieces_of(split.images)))
            evaluated.append(EvaluatedModel(seed, outputs.astype(np.float32), scores, speed))
    split.require_unchanged()
    return evaluated
