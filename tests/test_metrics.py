"""Every reported number, against cases small enough to compute by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.metrics import confusion_matrix, log_probabilities, per_class, predicted_labels, score
from pipeline.evaluation.summary import summarise


def outputs_of(*probabilities: list[float]) -> np.ndarray:
    """Outputs whose softmax is these probabilities; the constant added to each row must not matter."""
    return np.log(np.array(probabilities)) + np.arange(len(probabilities))[:, None]


HALF = outputs_of([0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.1, 0.3, 0.6], [0.2, 0.6, 0.2])
LABELS = np.array([0, 1, 2, 0])  # right, wrong, right, wrong


def test_accuracy_is_the_share_of_right_answers() -> None:
    assert score(HALF, LABELS).accuracy == 0.5
    assert score(HALF[:3], LABELS[:3]).accuracy == pytest.approx(2 / 3, rel=1e-15)


def test_loss_is_the_mean_negative_log_of_the_probability_of_the_label() -> None:
    expected = -(math.log(0.7) + math.log(0.25) + math.log(0.6) + math.log(0.2)) / 4
    assert score(HALF, LABELS).loss == pytest.approx(expected, rel=1e-14)


def test_equal_outputs_lose_the_logarithm_of_the_number_of_classes() -> None:
    assert score(np.zeros((5, 8)), np.arange(5)).loss == pytest.approx(math.log(8), rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_outputs_do_not_overflow(dtype: type) -> None:
    outputs = np.array([[1e6, 0.0], [-1e6, 1e6]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        scores = score(outputs, np.array([1, 1]))
    assert (scores.loss, scores.accuracy, scores.brier, scores.calibration_error) == (5e5, 0.5, 1.0, 0.5)


def test_log_probabilities_are_those_of_the_softmax() -> None:
    logs = log_probabilities(HALF)
    np.testing.assert_allclose(np.exp(logs[1]), [0.5, 0.25, 0.25], rtol=1e-14)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=1e-14)


def test_brier_is_the_mean_squared_distance_to_the_one_hot_label() -> None:
    distances = [0.09 + 0.04 + 0.01, 0.25 + 0.5625 + 0.0625, 0.01 + 0.09 + 0.16, 0.64 + 0.36 + 0.04]
    assert score(HALF, LABELS).brier == pytest.approx(sum(distances) / 4, rel=1e-14)


def test_brier_is_two_for_certainty_in_the_wrong_class() -> None:
    assert score(np.array([[1e3, 0.0, 0.0]]), np.array([2])).brier == 2


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_examples() -> None:
    # Four bins. Confidences 0.7 and 0.6 (both right), 0.6 (wrong) are in [0.5, 0.75); 0.9 (wrong) is in [0.75, 1].
    outputs = outputs_of([0.7, 0.3], [0.4, 0.6], [0.6, 0.4], [0.9, 0.1])
    middle, top = abs(2 / 3 - 1.9 / 3), abs(0 - 0.9)
    found = score(outputs, np.array([0, 1, 1, 1]), calibration_bins=4).calibration_error
    assert found == pytest.approx(3 / 4 * middle + 1 / 4 * top, rel=1e-13)


def test_fifteen_bins_unless_told() -> None:
    outputs = outputs_of([0.936, 0.064], [0.94, 0.06])  # 15 bins part at 0.933, 16 at 0.9375
    labels = np.array([0, 1])
    assert score(outputs, labels) == score(outputs, labels, calibration_bins=15)
    assert score(outputs, labels) != score(outputs, labels, calibration_bins=16)


def test_each_example_is_scaled_by_itself() -> None:
    """One with large outputs does not push another's below what float64 holds."""
    outputs = np.array([[1.0, 2.0], [5000.0, 4000.0]])
    np.testing.assert_allclose(np.exp(log_probabilities(outputs)[0]), [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-14)


def test_a_class_that_occurs_once_and_is_predicted_once_has_its_scores() -> None:
    found = per_class(np.array([[1, 0], [0, 3]]))
    assert [found[name].tolist() for name in ("precision", "recall", "f1")] == [[1, 1], [1, 1], [1, 1]]


def test_bins_are_judged_apart_so_that_errors_of_two_bins_do_not_cancel() -> None:
    outputs = outputs_of([0.55, 0.45], [0.95, 0.05])  # too modest in one bin, too sure in another
    labels = np.array([0, 1])
    assert score(outputs, labels, calibration_bins=10).calibration_error == pytest.approx((0.45 + 0.95) / 2, rel=1e-13)
    assert score(outputs, labels, calibration_bins=1).calibration_error == pytest.approx(0.25, rel=1e-13)


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    outputs = np.array([[1e3, 0.0], [0.0, 1e3], [1e3, 0.0], [1e3, 0.0]])
    assert score(outputs, np.array([0, 1, 1, 0])).calibration_error == 0.25


def test_ties_take_the_first_class() -> None:
    outputs = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]])
    assert predicted_labels(outputs).tolist() == [0, 1]
    assert score(outputs, np.array([0, 2])).accuracy == 0.5
    assert confusion_matrix(outputs, np.array([0, 2])).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_float32_outputs_are_judged_in_float64() -> None:
    outputs = np.random.default_rng(0).normal(0, 5, (1000, 10)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 10, 1000)
    assert log_probabilities(outputs).dtype == np.float64
    assert score(outputs, labels) == score(outputs.astype(np.float64), labels)
    exact = math.fsum(
        math.log(math.fsum(math.exp(value) for value in row)) - float(row[label])
        for row, label in zip(outputs.astype(np.float64), labels, strict=True)
    )
    assert score(outputs, labels).loss == pytest.approx(exact / 1000, rel=1e-13)


def test_rows_of_the_confusion_matrix_are_actual_and_columns_predicted() -> None:
    outputs = np.eye(3)[[1, 1, 2, 0]]
    confusion = confusion_matrix(outputs, np.array([0, 0, 1, 0]))
    assert confusion.tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 0]]
    assert confusion.dtype == np.int64


def test_precision_goes_by_columns_and_recall_by_rows() -> None:
    found = per_class(np.array([[6, 2], [1, 3]]))
    np.testing.assert_allclose(found["precision"], [6 / 7, 3 / 5], rtol=1e-15)
    np.testing.assert_allclose(found["recall"], [6 / 8, 3 / 4], rtol=1e-15)
    np.testing.assert_allclose(found["f1"], [12 / 15, 6 / 9], rtol=1e-14)


def test_classes_that_are_absent_or_never_predicted_score_zero_without_a_warning() -> None:
    with np.errstate(all="raise"):
        found = per_class(np.array([[2, 0, 1], [2, 0, 0], [0, 0, 0]]))  # 1 is never predicted, 2 never occurs
    np.testing.assert_allclose(found["precision"], [1 / 2, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(found["recall"], [2 / 3, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(found["f1"], [4 / 7, 0, 0], rtol=1e-14)


@pytest.mark.parametrize("values", [[0.97, 0.98], [1.0, 2.0, 4.0], list(np.random.default_rng(2).normal(5, 2, 30))])
def test_the_interval_is_that_of_students_t(values: list[float]) -> None:
    summary = summarise(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx((low, high), rel=1e-12)
    assert summary.mean == pytest.approx(np.mean(values), rel=1e-15)
    assert summary.std == pytest.approx(np.std(values, ddof=1), rel=1e-15)
    assert summary.n == len(values)


def test_equal_measurements_have_no_spread() -> None:
    summary = summarise(np.full(4, 0.5))
    assert (summary.std, summary.low, summary.high) == (0, 0.5, 0.5)


def test_one_measurement_says_nothing_about_the_spread() -> None:
    summary = summarise([0.25])
    assert (summary.mean, summary.n) == (0.25, 1)
    assert all(math.isnan(value) for value in (summary.std, summary.low, summary.high))
