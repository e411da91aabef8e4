"""Trained networks on a whole split: their predictions, scores and inference speed."""

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
from .summary import percent

_IMAGES_PER_UPDATE: Final = 1024
"""Images between two updates of the progress bar."""


@dataclass(frozen=True)
class EvaluatedModel:
    """The network of one seed, evaluated on a split."""

    seed: int
    outputs: np.ndarray
    """Outputs of the last layer, float32 (N, classes)."""
    scores: metrics.Scores
    inference: Inference

    @property
    def tracked(self) -> dict[str, float]:
        """The numbers for MLflow, by metric name."""
        return {f"test/{name}": value for name, value in asdict(self.scores).items()} | {
            "test/accuracy_percent": percent(self.scores.accuracy),
            "test/error_percent": 100 * (1 - self.scores.accuracy),  # bars start at 0: accuracies all look alike
            "time/inference_p50_milliseconds": self.inference.latency_p50_milliseconds,
            "time/inference_p95_milliseconds": self.inference.latency_p95_milliseconds,
            "throughput/inference_images_per_second": round(self.inference.images_per_second),
        }


def evaluate_models(
    title: str, seeds: Sequence[int], open_model: Callable[[int], Classifier], split: Split, calibration_bins: int
) -> list[EvaluatedModel]:
    """Evaluate the network of each seed on a split; `open_model` loads the network of a seed.

    Raises `DataChangedError` if the images on disk changed meanwhile.
    """
    evaluated = []
    with steps(f"evaluate {title}", len(split.images) * len(seeds), "images") as progress:
        for seed in seeds:
            classifier, parts = open_model(seed), []
            most = {"most": _IMAGES_PER_UPDATE} if progress.watched else {}
            for piece in pieces_of(split.images, classifier.predict_batch, **most):
                parts.append(classifier.predict(piece))
                progress(len(piece))
            outputs = np.concatenate(parts)
            scores = metrics.score(outputs, split.labels, calibration_bins)
            speed = inference(classifier, next(pieces_of(split.images, classifier.predict_batch)))
            evaluated.append(EvaluatedModel(seed, outputs.astype(np.float32), scores, speed))
    split.require_unchanged()
    return evaluated
