"""Outputs and labels to every number that is reported: NumPy, float64, one place."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """How good a set of predictions is. All are means over the examples, in [0, 1] but for `loss` (nats, >= 0)."""

    accuracy: float
    loss: float
    """Log-loss: mean of -ln p(label)."""
    brier: float
    """Mean over the examples of the squared distance to the one-hot label, in [0, 2] (Brier 1950)."""
    calibration_error: float
    """Expected calibration error over equal-width bins of the confidence (Guo et al. 2017, equation 3)."""


def log_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Log-softmax, float64 (M, K), of the outputs of the last layer."""
    z = outputs.astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def predicted_labels(outputs: np.ndarray) -> np.ndarray:
    """int64 (M,): the class of the largest output, the first of equals."""
    return np.asarray(outputs.argmax(axis=1))


def score(outputs: np.ndarray, labels: np.ndarray, calibration_bins: int = 15) -> Scores:
    """Judge outputs (M, K) against labels int64 (M,), M >= 1."""
    one_hot = np.eye(outputs.shape[1])[labels]
    return Scores(
        accuracy=float((predicted_labels(outputs) == labels).mean()),
        loss=float(losses(outputs, labels).mean()),
        brier=float(((np.exp(log_probabilities(outputs)) - one_hot) ** 2).sum(axis=1).mean()),
        calibration_error=float(np.abs(calibration_gaps(outputs, labels, calibration_bins).sum(axis=0)).sum())
        / len(labels),
    )


def losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-ln p(label) of each example, float64 (M,)."""
    return np.asarray(-log_probabilities(outputs)[np.arange(len(labels)), labels])


def confidence(outputs: np.ndarray) -> np.ndarray:
    """The largest probability of each example, float64 (M,)."""
    return np.asarray(np.exp(log_probabilities(outputs)).max(axis=1))


def calibration_gaps(outputs: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    """Confidence minus hit (0 or 1) of each example, in the column of its bin, float64 (M, bins), 0 elsewhere.

    The expected calibration error is the sum of the absolute column means (Guo et al. 2017, equation 3), also of a
    weighted or resampled set of examples: so it can be bootstrapped by one matrix product.
    """
    sure = confidence(outputs)
    gaps = np.zeros((len(labels), bins))
    columns = np.minimum((sure * bins).astype(np.int64), bins - 1)
    gaps[np.arange(len(labels)), columns] = sure - (predicted_labels(outputs) == labels)
    return gaps


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 (K, K): row the actual class, column the predicted one."""
    classes = outputs.shape[1]
    return np.bincount(labels * classes + predicted_labels(outputs), minlength=classes**2).reshape(classes, classes)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1, float64 (K,) each; 0 where a class was never predicted or never occurs."""
    hits = np.diag(confusion).astype(np.float64)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, actual, out=np.zeros_like(hits), where=actual > 0)
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": np.divide(2 * precision * recall, both, out=np.zeros_like(hits), where=both > 0),
    }
