"""How sure the comparison is: against scipy, statsmodels, formulas written out, and simulated pairs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from pipeline.comparison import paired_tests as paired
from pipeline.comparison.paired_tests import Difference, SamplingDistribution
from pipeline.comparison.verdict import POINTS, Verdict, decide, power, sentence
from pipeline.evaluation import metrics

BINS = 15


def pair(seeds: int, n: int, gain: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs (S, N, 3) of two sides with noise of seeds and examples; `gain` makes A better."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    hard = generator.normal(2.0, 2.0, n)
    sides = []
    for shift in (gain, 0.0):
        outputs = generator.normal(0, 1, (seeds, n, 3))
        outputs[:, np.arange(n), labels] += hard + shift + generator.normal(0, 0.1, (seeds, 1))
        sides.append(outputs.astype(np.float32))
    return sides[0], sides[1], labels


def difference(a: list[float], b: list[float], example_variance: float = 0.0, metric: str = "accuracy") -> Difference:
    d = np.subtract(a, b)
    return Difference(metric, tuple(a), tuple(b), float(d.mean()), float(d.var(ddof=1)), example_variance)


A, B = [0.971, 0.969, 0.974, 0.970], [0.968, 0.970, 0.969, 0.967]


def test_differences_are_those_of_the_reported_metrics() -> None:
    a, b, labels = pair(3, 500)
    found = paired.differences(a, b, labels, bins=BINS, resamples=200)
    for metric, one in found.items():
        scores = [[getattr(metrics.score(of_seed, labels, BINS), metric) for of_seed in side] for side in (a, b)]
        np.testing.assert_allclose(one.a, scores[0], rtol=1e-12)
        np.testing.assert_allclose(one.b, scores[1], rtol=1e-12)
        assert one.mean == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]), abs=1e-12)


def test_variances_are_those_of_seeds_and_of_examples() -> None:
    """For means over examples the bootstrap's covariance has a closed form: that of the examples over N."""
    a, b, labels = pair(4, 800)
    found = paired.differences(a, b, labels, bins=BINS, resamples=20_000)["loss"]
    d = np.stack([metrics.losses(x, labels) - metrics.losses(y, labels) for x, y in zip(a, b, strict=True)])
    covariance = np.cov(d) / d.shape[1]
    shared = covariance[~np.eye(4, dtype=bool)].mean()
    assert found.seed_variance == pytest.approx(d.mean(axis=1).var(ddof=1))
    assert found.example_variance == pytest.approx(max(shared, 0), abs=0.05 * np.diag(covariance).mean())
    expected = (found.seed_variance / 4 + found.example_variance) ** 0.5
    assert found.distribution().standard_error == pytest.approx(expected)


def test_the_calibration_error_is_resampled_as_a_whole() -> None:
    """Its replicates are the calibration errors of resampled examples, not means of anything."""
    a, b, labels = pair(1, 300)
    found = paired.differences(a, b, labels, bins=BINS, resamples=4000)["calibration_error"]
    generator = np.random.default_rng(5)
    errors = []
    for _ in range(2000):
        rows = generator.integers(0, 300, 300)
        scores = [metrics.score(side[0][rows], labels[rows], BINS).calibration_error for side in (a, b)]
        errors.append(scores[0] - scores[1])
    assert found.example_variance == pytest.approx(np.var(errors), rel=0.12)


def test_without_variance_of_examples_it_is_the_paired_t_test() -> None:
    found = difference(A, B)
    test = stats.ttest_rel(A, B)
    assert found.p_value == pytest.approx(test.pvalue)
    assert found.interval() == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_equivalence_is_the_paired_tost() -> None:
    p_value, _, _ = ttost_paired(np.array(A), np.array(B), -0.005, 0.005)
    assert difference(A, B).p_equivalence(0.005) == pytest.approx(p_value)


def test_the_variance_of_examples_is_added_and_counted_as_known() -> None:
    """The distribution is simulated by its definition: Student's t of the seeds plus a normal of the examples."""
    found = difference(A, B, example_variance=4e-6)
    distribution = found.distribution()
    assert distribution.standard_error**2 == pytest.approx(found.seed_variance / 4 + 4e-6)
    assert distribution.example_share == pytest.approx(4e-6 / (found.seed_variance / 4 + 4e-6))
    generator = np.random.default_rng(0)
    of_seeds, of_examples = generator.standard_t(3, 1_000_000), generator.normal(size=1_000_000)
    share = distribution.example_share
    drawn = (1 - share) ** 0.5 * of_seeds + share**0.5 * of_examples
    for probability in (0.9, 0.95, 0.975):
        assert distribution.quantile(probability) == pytest.approx(np.quantile(drawn, probability), rel=0.01)
        assert distribution.cdf(distribution.quantile(probability)) == pytest.approx(probability)
    low, high = found.interval()
    half = distribution.standard_error * distribution.quantile(0.975)
    assert (low, high) == pytest.approx((found.mean - half, found.mean + half))


def test_the_equivalence_interval_is_within_the_margin_just_where_the_test_passes() -> None:
    found = replace(difference(A, B, example_variance=1e-6), examples=2000)
    for margin in (0.002, 0.004, 0.006, 0.008, 0.02):
        low, high = found.equivalence_interval(margin)
        assert (-margin < low and high < margin) == (found.p_equivalence(margin) < 0.05)


def test_equivalence_of_accuracy_counts_the_images_that_the_margin_would_take() -> None:
    """A alone gets 5 of 2,000 right, and the margin takes 10: their number varies by the root of 10, not of 5."""
    hits = np.ones((3, 2000, 1))
    a = np.concatenate([hits, np.zeros_like(hits)], axis=2).astype(np.float32)
    b = a.copy()
    b[:, :5] = (0, 1)
    found = paired.differences(a, b, np.zeros(2000, np.int64), bins=BINS, resamples=4000)["accuracy"]
    assert found.mean == pytest.approx(0.0025)
    assert found.distribution(margin=0.005).standard_error ** 2 == pytest.approx(10 / 2000**2, rel=0.1)
    assert found.p_equivalence(0.005) == pytest.approx(stats.norm.cdf(-5 / 10**0.5), abs=0.02)


def test_mcnemar_is_that_of_statsmodels() -> None:
    a, b, labels = pair(2, 400, gain=0.5)
    for test, x, y in zip(paired.mcnemar(a, b, labels, (3, 7)), a, b, strict=True):
        right_a, right_b = (metrics.predicted_labels(side) == labels for side in (x, y))
        table = [[(right_a & right_b).sum(), (right_a & ~right_b).sum()], [(~right_a & right_b).sum(), 0]]
        assert (test.only_a, test.only_b) == (table[0][1], table[1][0])
        assert test.p_value == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert paired.mcnemar(a, a, labels, (3, 7))[0].p_value == 1


def test_the_probability_of_beating_counts_ties_half_and_knows_the_direction() -> None:
    found = paired.wins(difference([0.3, 0.1, 0.2, 0.2], [0.1, 0.3, 0.1, 0.2]))
    assert found.probability == 0.625
    assert (found.low, found.high) == pytest.approx(proportion_confint(2.5, 4, method="beta"))
    assert paired.wins(difference([0.3, 0.1, 0.2, 0.2], [0.1, 0.3, 0.1, 0.2], metric="loss")).probability == 0.375


def resampled(a: np.ndarray, b: np.ndarray, labels: np.ndarray, metric: str, resamples: int, seed: int) -> np.ndarray:
    """(resamples, S): differences of the metric on resampled examples, one by one."""
    rows = np.random.default_rng(seed).integers(0, len(labels), (resamples, len(labels)))
    found = [
        [
            getattr(metrics.score(x[drawn], labels[drawn], 5), metric)
            - getattr(metrics.score(y[drawn], labels[drawn], 5), metric)
            for x, y in zip(a, b, strict=True)
        ]
        for drawn in rows
    ]
    return np.array(found)


@pytest.mark.parametrize("metric", ["accuracy", "loss", "calibration_error"])
@pytest.mark.parametrize("seed", [0, 3])
def test_the_variances_come_from_the_same_resampled_examples_for_all_seeds(metric: str, seed: int) -> None:
    a, b, labels = pair(3, 40, gain=0.3)
    given = {} if seed == 0 else {"seed": seed}
    found = paired.differences(a, b, labels, bins=5, resamples=60, **given)[metric]
    covariance = np.cov(resampled(a, b, labels, metric, 60, seed).T)
    shared = covariance[~np.eye(3, dtype=bool)].mean()
    assert found.example_variance == pytest.approx(max(shared, 0), rel=1e-9)
    assert found.seed_variance == pytest.approx(np.var(np.subtract(found.a, found.b), ddof=1))
    assert found.examples == 40
    one = paired.differences(a[:1], b[:1], labels, bins=5, resamples=60, **given)[metric]
    own = resampled(a[:1], b[:1], labels, metric, 60, seed).var(ddof=1)
    assert (one.example_variance, one.examples) == (pytest.approx(own), 40)
    assert np.isnan(one.seed_variance)
    assert one.distribution() == SamplingDistribution(pytest.approx(own**0.5), 1, 0)


def test_examples_that_all_seeds_share_never_lower_the_error() -> None:
    """Their covariance may be found negative by chance."""
    for number in range(40):
        a, b, labels = pair(2, 30, seed=number)
        for found in paired.differences(a, b, labels, bins=5, resamples=50).values():
            assert found.example_variance >= 0


def test_what_is_known_of_the_error_is_the_share_of_the_examples() -> None:
    found = difference(A, B, example_variance=4e-6)
    for seeds in (None, 9):
        between, count = found.seed_variance / (seeds or 4), seeds or 4
        distribution = found.distribution(seeds)
        assert distribution.standard_error == pytest.approx((between + 4e-6) ** 0.5)
        assert distribution.example_share == pytest.approx(4e-6 / (between + 4e-6))
        assert distribution.degrees_of_freedom == count - 1
    nothing = Difference("loss", (1.0, 1.0), (1.0, 1.0), 0.0, 0.0, 0.0)
    assert nothing.distribution() == SamplingDistribution(0.0, 1.0, 1)


def test_a_margin_adds_to_the_error_of_accuracy_alone() -> None:
    found = replace(difference([0.972, 0.97], [0.971, 0.97], example_variance=1e-6), examples=2000)
    added = (0.005 - found.mean) / 2000
    expected = found.distribution().standard_error ** 2 + added
    assert found.distribution(margin=0.005).standard_error ** 2 == pytest.approx(expected)
    assert found.distribution(margin=1e-4).standard_error == found.distribution().standard_error
    assert replace(found, examples=0).distribution(margin=0.005) == found.distribution()
    for metric in ("loss", "calibration_error"):
        assert replace(found, metric=metric).distribution(margin=0.005) == found.distribution()


def test_the_distribution_is_students_or_the_normal_at_its_ends() -> None:
    for value in (-2.0, 0.0, 0.7):
        assert SamplingDistribution(1.0, 0, 4).cdf(value) == pytest.approx(stats.t(4).cdf(value))
        assert SamplingDistribution(1.0, 1, 4).cdf(value) == pytest.approx(stats.norm.cdf(value))
    for probability in (0.6, 0.95):
        assert SamplingDistribution(1.0, 0, 4).quantile(probability) == pytest.approx(stats.t(4).ppf(probability))
        assert SamplingDistribution(1.0, 1, 4).quantile(probability) == pytest.approx(stats.norm.ppf(probability))
    for known in (1e-4, 0.3, 0.9999):  # and between them otherwise
        middle = SamplingDistribution(1.0, known, 1)
        assert stats.norm.ppf(0.975) - 0.01 < middle.quantile(0.975) < stats.t(1).ppf(0.975) + 0.2
        assert middle.cdf(middle.quantile(0.975)) == pytest.approx(0.975, abs=1e-7)


def test_without_any_error_it_is_certain() -> None:
    same, other = (Difference("loss", (1.0, 1.0), (b, b), 1.0 - b, 0.0, 0.0) for b in (1.0, 0.75))
    assert (same.p_value, other.p_value) == (1.0, 0.0)
    assert same.interval() == (0.0, 0.0)
    assert other.interval() == other.equivalence_interval(0.1) == (0.25, 0.25)
    assert [other.p_equivalence(margin) for margin in (0.25, 0.2, 0.3)] == [1.0, 1.0, 0.0]


def test_a_side_is_ahead_by_what_is_better_of_the_metric() -> None:
    for metric, higher in (("accuracy", True), ("loss", False), ("calibration_error", False)):
        assert difference(A, B, metric=metric).favours_a == higher
        assert difference(B, A, metric=metric).favours_a == (not higher)


def test_many_examples_are_resampled_part_by_part() -> None:
    """As many numbers as fit into memory at once; more of them come to the same."""
    a, b, labels = pair(2, 3000)
    few, many = (paired.differences(a, b, labels, bins=BINS, resamples=count) for count in (2000, 8000))
    for metric, found in few.items():
        shared = found.example_variance + found.seed_variance / 2
        assert many[metric].example_variance == pytest.approx(found.example_variance, abs=0.1 * shared)
        assert many[metric].seed_variance == found.seed_variance


def test_the_probability_of_beating_lies_within_0_and_1() -> None:
    ahead = paired.wins(difference([0.3, 0.3], [0.1, 0.1]))
    behind = paired.wins(difference([0.1, 0.1], [0.3, 0.3]))
    assert (ahead.probability, ahead.high, behind.probability, behind.low) == (1.0, 1.0, 0.0, 0.0)
    assert ahead.low == pytest.approx(proportion_confint(2, 2, method="beta")[0])
    assert behind.high == pytest.approx(1 - ahead.low)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
def test_the_interval_of_the_probability_of_beating_covers_in_95_percent_or_more(seeds: int) -> None:
    """Exactly, for any true probability and any chance of a tie; Wilson's interval covers 79 to 85 % at the worst."""
    ends = {}
    for halves in range(2 * seeds + 1):
        wins, ties = divmod(halves, 2)
        a = [1.0] * wins + [0.5] * ties + [0.0] * (seeds - wins - ties)
        found = paired.wins(difference(a, [0.5] * seeds) if seeds > 1 else one_seed(a[0]))
        ends[halves] = (found.low, found.high)
    for tie in (0.0, 0.1, 0.4):
        win = np.linspace(0, 1 - tie, 201)
        chances = np.stack([win, np.full_like(win, tie), np.maximum(1 - win - tie, 0)], axis=1)
        covered = np.zeros_like(win)
        for wins in range(seeds + 1):
            for ties in range(seeds - wins + 1):
                low, high = ends[2 * wins + ties]
                inside = (low - 1e-12 <= win + tie / 2) & (win + tie / 2 <= high + 1e-12)
                covered += (
                    inside * (chances ** (wins, ties, seeds - wins - ties)).prod(axis=1) * comb(seeds, wins, ties)
                )
        assert covered.min() >= 0.95


def comb(n: int, first: int, second: int) -> int:
    """Ways to put n into groups of `first`, `second` and the rest."""
    return math.comb(n, first) * math.comb(n - first, second)


def one_seed(a: float) -> Difference:
    return Difference("accuracy", (a,), (0.5,), a - 0.5, float("nan"), 1e-6)


def test_a_test_by_seed_names_its_seed() -> None:
    labels = np.zeros(20, np.int64)
    right, wrong = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    a = np.stack([np.tile(right, (20, 1))] * 2)
    b = a.copy()
    b[1, :6] = wrong
    found = paired.mcnemar(a, b, labels, (7, 9))
    assert [(one.seed, one.only_a, one.only_b) for one in found] == [(7, 0, 0), (9, 6, 0)]
    assert [one.p_value for one in found] == [1.0, pytest.approx(2 * 0.5**6)]


SURE = ([0.97, 0.971, 0.969, 0.970, 0.9705], [0.95, 0.9515, 0.948, 0.951, 0.9502])
CASES = {
    "A is higher": (difference(*SURE), 0.005, "a_better", False),
    "B is higher": (difference(*SURE[::-1]), 0.005, "b_better", False),
    "a lower loss is better": (difference(*SURE, metric="loss"), 0.005, "b_better", False),
    "better, but it does not matter": (difference(*SURE), 0.05, "a_better", True),
    "no difference that matters": (difference([0.97, 0.96, 0.98], [0.971, 0.9595, 0.9798]), 0.01, "equivalent", True),
    "too noisy": (difference([0.97, 0.93, 0.99], [0.95, 0.96, 0.95]), 0.005, "inconclusive", False),
    "apart by rounding": (difference([0.1314, 0.1262], [0.1314 + 1e-8, 0.1262 + 1.01e-8]), 0.005, "equivalent", True),
    "identical": (difference([0.97, 0.96], [0.97, 0.96]), 0.005, "equivalent", True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict(case: str) -> None:
    found, margin, kind, within = CASES[case]
    verdict = decide(found, margin)
    assert (verdict.kind, verdict.within_margin) == (kind, within)
    assert (verdict.more_seeds is None) == (kind != "inconclusive")


def test_inconclusive_says_how_many_more_seeds() -> None:
    found = difference([0.970, 0.965, 0.973], [0.966, 0.968, 0.967], example_variance=1e-7)
    more = decide(found, 0.005).more_seeds
    assert more is not None
    assert power(found, 0.005, 3 + more) >= 0.8 > power(found, 0.005, 3 + more - 1)
    assert f"about {more} more seeds" in sentence(decide(found, 0.005), found, 0.005, "X", "Y")


def test_inconclusive_says_when_more_seeds_do_not_help() -> None:
    found = difference([0.970, 0.969], [0.968, 0.968], example_variance=1e-4)
    verdict = decide(found, 0.005)
    assert (verdict.kind, verdict.more_seeds) == ("inconclusive", None)
    assert "the test split is too small" in sentence(verdict, found, 0.005, "X", "Y")


def test_one_seed_decides_nothing_and_says_why() -> None:
    a, b, labels = pair(1, 2000, gain=1.0)
    found = paired.differences(a, b, labels, bins=BINS, resamples=500)["accuracy"]
    assert found.p_value < 0.01
    verdict = decide(found, 0.005)
    assert verdict.kind == "inconclusive"
    said = sentence(verdict, found, 0.005, "X", "Y")
    assert "one seed cannot tell" in said
    assert "Of these two models X is ahead" in said


def test_predictions_that_are_the_same_are_equivalent() -> None:
    a, _, labels = pair(3, 2000)
    for found in paired.differences(a, a, labels, bins=BINS, resamples=200).values():
        assert (found.mean, found.distribution().standard_error, found.p_value) == (0, 0, 1)
        assert decide(found, 0.005).kind == "equivalent"


def test_200_images_cannot_show_that_accuracies_differ_by_less_than_one_image() -> None:
    a, _, labels = pair(3, 200)
    found = paired.differences(a, a, labels, bins=BINS, resamples=200)["accuracy"]
    assert decide(found, 0.004) == Verdict("inconclusive", False, None)


@pytest.mark.parametrize("mistakes", [10, 18, 31])
def test_a_spread_of_0_over_seeds_is_not_taken_for_certainty(mistakes: int) -> None:
    """Accuracy is coarse: two seeds may show the same difference on other examples, or one that rounding moves."""
    labels = np.zeros(100, np.int64)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    a = np.array([[right] * (100 - m) + [wrong] * m for m in (mistakes, 10)], np.float32)
    b = a.copy()
    b[0, 0], b[1, 50] = wrong, wrong
    found = paired.differences(a, b, labels, bins=BINS, resamples=2000)["accuracy"]
    assert np.subtract(found.a, found.b) == pytest.approx([0.01, 0.01])
    assert found.distribution().standard_error > 0.005
    assert found.p_value > 0.1


# What it says


def say(found: Difference, margin: float) -> str:
    return sentence(decide(found, margin), found, margin, "X", "Y")


ONE_SEED = (
    "Inconclusive: one seed cannot tell X and Y from the luck of their initial weights; at least 2 more are needed. "
)
SENTENCES = {
    "A is better": (
        (difference([0.97, 0.96, 0.98], [0.93, 0.91, 0.94]), 0.005),
        "X is better. X minus Y: +4.33 points, 95 % interval +2.90 to +5.77.",
    ),
    "B is better": (
        (difference([0.93, 0.91, 0.94], [0.97, 0.96, 0.98]), 0.005),
        "Y is better. X minus Y: -4.33 points, 95 % interval -5.77 to -2.90.",
    ),
    "a loss is in nats": (
        (difference([0.3, 0.31, 0.32], [0.2, 0.211, 0.22], metric="loss"), 0.02),
        "Y is better. X minus Y: +0.0997 nats, 95 % interval +0.0982 to +0.1011.",
    ),
    "better by less than matters": (
        (difference([0.97, 0.96, 0.98], [0.969, 0.9588, 0.9789], metric="calibration_error"), 0.01),
        "Y is better, by less than the margin of 1 points. X minus Y: +0.11 points, 95 % interval +0.09 to +0.13.",
    ),
    "equivalent": (
        (difference([0.97, 0.96, 0.98, 0.97], [0.971, 0.9595, 0.9798, 0.97]), 0.0025),
        "Equivalent within the margin of 0.25 points. X minus Y: -0.01 points, 95 % interval -0.11 to +0.10; "
        "equivalence test p = 0.002.",
    ),
    "equivalent for sure": (
        (difference([0.97, 0.96, 0.98, 0.97], [0.971, 0.9595, 0.9798, 0.97]), 0.01),
        "Equivalent within the margin of 1 points. X minus Y: -0.01 points, 95 % interval -0.11 to +0.10; "
        "equivalence test p < 0.001.",
    ),
    "one seed": (
        (Difference("accuracy", (0.97,), (0.96,), 0.01, float("nan"), 1e-6), 0.005),
        f"{ONE_SEED}Of these two models X is ahead: X minus Y: +1.00 points, 95 % interval +0.80 to +1.20, over the "
        "examples alone.",
    ),
    "one seed, the other way": (
        (Difference("loss", (0.97,), (0.96,), 0.01, float("nan"), 1e-6), 0.005),
        f"{ONE_SEED}Of these two models Y is ahead: X minus Y: +0.0100 nats, 95 % interval +0.0080 to +0.0120, over "
        "the examples alone.",
    ),
    "one seed, alike": (
        (Difference("accuracy", (0.96,), (0.96,), 0.0, float("nan"), 1e-6), 0.005),
        f"{ONE_SEED}Of these two models neither is ahead: X minus Y: 0.00 points, 95 % interval -0.20 to +0.20, over "
        "the examples alone.",
    ),
    "some more seeds": (
        (difference([0.970, 0.965, 0.973], [0.966, 0.968, 0.967], example_variance=1e-7), 0.005),
        "Inconclusive: about 20 more seeds would settle it. X minus Y: +0.23 points, 95 % interval -0.94 to +1.41.",
    ),
    "a few more seeds": (
        (difference([0.02, 0.04, 0.03, 0.0], [0.0, 0.0, 0.0, 0.0], metric="loss"), 0.001),
        "Inconclusive: about 3 more seeds would settle it. X minus Y: +0.0225 nats, 95 % interval -0.0047 to +0.0497.",
    ),
    "no number of seeds": (
        (difference([0.970, 0.969], [0.968, 0.968], example_variance=1e-4), 0.005),
        "Inconclusive, and more seeds would not settle it: the test split is too small for a margin of 0.5 points. "
        "X minus Y: +0.15 points, 95 % interval -2.00 to +2.30.",
    ),
}


@pytest.mark.parametrize(("asked", "told"), SENTENCES.values(), ids=SENTENCES)
def test_the_verdict_in_words(asked: tuple[Difference, float], told: str) -> None:
    assert say(*asked) == told


# How many more seeds


def chance(found: Difference, margin: float, seeds: np.ndarray | int) -> np.ndarray:
    """Of a verdict, where nothing is known of the examples: Student's t, shifted."""
    freedom, size = np.asarray(seeds) - 1, abs(found.mean)
    error = np.sqrt(found.seed_variance / np.asarray(seeds))
    better = stats.t.cdf(size / error - stats.t.ppf(0.975, freedom), freedom)
    low, high = (stats.t.cdf((margin + sign * size) / error - stats.t.ppf(0.95, freedom), freedom) for sign in (-1, 1))
    return np.maximum(better, low + high - 1)


@pytest.mark.parametrize("margin", [0.002, 0.01, 0.03, 0.08])
@pytest.mark.parametrize("seeds", [3, 8, 40])
def test_the_chance_of_a_verdict_is_that_of_the_tests(margin: float, seeds: int) -> None:
    for a in ([0.02, 0.06, -0.02, 0.01], [0.0, 0.03, -0.02, -0.013]):
        found = difference(a, [0.0] * 4, metric="loss")
        assert power(found, margin, seeds) == pytest.approx(chance(found, margin, seeds), abs=1e-9)


def test_the_margin_of_accuracy_counts_the_images_that_it_takes() -> None:
    found = replace(difference([0.002, 0.001, 0.0], [0.0] * 3), examples=400)
    at_margin = found.distribution(9, margin=0.02)
    plain = found.distribution(9)
    ends = [0.02 + sign * found.mean - at_margin.standard_error * at_margin.quantile(0.95) for sign in (-1, 1)]
    expected = sum(plain.cdf(end / plain.standard_error) for end in ends) - 1
    better = plain.cdf(found.mean / plain.standard_error - plain.quantile(0.975))
    assert at_margin.standard_error > 2 * plain.standard_error
    assert power(found, 0.02, 9) == pytest.approx(max(better, expected))


def test_where_nothing_varies_it_is_settled_or_never() -> None:
    same, other = difference([0.9, 0.8], [0.9, 0.8]), difference([0.9, 0.8], [0.8, 0.7])
    assert power(same, 0.005, 3) == 1.0  # equivalent
    assert power(replace(other, seed_variance=0.0), 0.005, 3) == 1.0  # better
    assert power(replace(same, examples=10), 0.005, 3) == 0.0  # the margin is less than an image
    assert power(replace(same, examples=100_000), 0.005, 3) == 1.0


@pytest.mark.parametrize(("mean", "more"), [(0.1256, 495), (0.1254, None), (1.18, 3), (1.0, 5)])
def test_the_fewest_seeds_that_are_enough_are_named(mean: float, more: int | None) -> None:
    """At most 500 in all."""
    a = np.array([-1.2, -0.5, 0.1, 0.6, 1.0])
    found = difference(list(a / a.std(ddof=1) + mean - a.mean() / a.std(ddof=1)), [0.0] * 5, metric="loss")
    verdict = decide(found, 1e-9)
    assert verdict == Verdict("inconclusive", False, more)
    enough = np.flatnonzero(chance(found, 1e-9, np.arange(6, 501)) >= 0.8)
    assert more == (enough[0] + 1 if len(enough) else None)


def test_of_one_seed_two_more_are_asked_for() -> None:
    assert decide(Difference("accuracy", (0.97,), (0.9,), 0.07, float("nan"), 1e-8), 0.005) == Verdict(
        "inconclusive", False, 2
    )


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ((-0.004984, -1.6e-5), ("-0.50", "-0.002")),
        ((-4.4e-5, 0.1), ("-0.004", "+10.00")),
        ((-1e-6, 1e-6), ("-0.0001", "+0.0001")),
        ((-1e-9, 0.0), ("0.00", "0.00")),
    ],
)
def test_an_interval_that_ends_beside_0_does_not_seem_to_end_at_it(
    interval: tuple[float, float], shown: tuple[str, str]
) -> None:
    assert POINTS.ends(interval) == shown
