"""The scores that are reported, computed from outputs and labels in NumPy and float64."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """How good a set of predictions is: means over the examples."""

    accuracy: float
    """Share of right predictions, in [0, 1]."""
    loss: float
    """Log-loss in nats, >= 0: mean of -ln p(label)."""
    brier: float
    """Mean over the examples of the squared distance to the one-hot label, in [0, 2] (Brier 1950)."""
    calibration_error: float
    """Expected calibration error over equal-width bins of the confidence, in [0, 1] (Guo et al. 2017, equation 3)."""


def log_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return the log-softmax of the outputs of the last layer (M, K), float64 (M, K)."""
    z = outputs.astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def predicted_labels(outputs: np.ndarray) -> np.ndarray:
    """Return the class of the largest output of each example, the first of equals, int64 (M,)."""
    return np.asarray(outputs.argmax(axis=1))


def score(outputs: np.ndarray, labels: np.ndarray, calibration_bins: int = 15) -> Scores:
    """Score outputs (M, K) against labels int64 (M,), M >= 1; `calibration_bins` >= 1."""
    one_hot = np.eye(outputs.shape[1])[labels]
    return Scores(
        accuracy=float((predicted_labels(outputs) == labels).mean()),
        loss=float(losses(outputs, labels).mean()),
        brier=float(((np.exp(log_probabilities(outputs)) - one_hot) ** 2).sum(axis=1).mean()),
        calibration_error=float(np.abs(calibration_gaps(outputs, labels, calibration_bins).sum(axis=0)).sum())
        / len(labels),
    )


def losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -ln p(label) of each example in nats, float64 (M,)."""
    return np.asarray(-log_probabilities(outputs)[np.arange(len(labels)), labels])


def confidence(outputs: np.ndarray) -> np.ndarray:
    """Return the largest probability of each example, float64 (M,)."""
    return np.asarray(np.exp(log_probabilities(outputs)).max(axis=1))


def calibration_gaps(outputs: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    """Return confidence minus hit (0 or 1) of each example in the column of its bin, 0 elsewhere, float64 (M, bins).

    The expected calibration error is the sum of the absolute column means (Guo et al. 2017, equation 3). This holds for
    a weighted or resampled set of examples too, so that one matrix product bootstraps it.
    """
    probability = confidence(outputs)
    gaps = np.zeros((len(labels), bins))
    columns = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gaps[np.arange(len(labels)), columns] = probability - (predicted_labels(outputs) == labels)
    return gaps


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count the examples by actual class (row) and predicted class (column), int64 (K, K)."""
    classes = outputs.shape[1]
    return np.bincount(labels * classes + predicted_labels(outputs), minlength=classes**2).reshape(classes, classes)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return `precision`, `recall` and `f1` of each class, float64 (K,).

    Precision is 0 for a class that is never predicted, recall for one that never occurs, F1 if both are 0.
    """
    hits = np.diag(confusion).astype(np.float64)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, actual, out=np.zeros_like(hits), where=actual > 0)
    total = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": np.divide(2 * precision * recall, total, out=np.zeros_like(hits), where=total > 0),
    }
