"""How often the verdict errs, on simulated pairs: `calibrate_verdict.py` in small."""

from dataclasses import replace

import numpy as np
import pytest
from test_verdict import BINS, difference, pair

from pipeline.comparison import paired_tests as paired
from pipeline.comparison.verdict import decide


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_simulated_sides_that_are_alike_are_rarely_called_different(seeds: int) -> None:
    """`calibrate_verdict.py` in small: of 250 pairs, at most 5 % and two and a half standard errors."""
    kinds = []
    for number in range(250):
        a, b, labels = pair(seeds, 300, seed=number)
        found = paired.differences(a, b, labels, bins=BINS, resamples=200, seed=number)
        kinds.append([decide(one, 1e-6).kind.endswith("better") for one in found.values()])
    assert (np.mean(kinds, axis=0) <= 0.05 + 2.5 * (0.05 * 0.95 / 250) ** 0.5).all()
    assert np.mean(kinds) > 0.005


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 0.9, 1.0])
def test_a_difference_of_nothing_is_called_one_in_5_percent_at_most(seeds: int, share: float) -> None:
    """Whatever the examples' true share of the variance: 20,000 normal differences, 5 % and three standard errors."""
    count, generator = 20_000, np.random.default_rng(seeds)
    of_seeds = generator.normal(0, (seeds * (1 - share)) ** 0.5, (count, seeds))
    means = of_seeds.mean(axis=1) + generator.normal(0, share**0.5, count)
    errors = (of_seeds.var(axis=1, ddof=1) / seeds + share) ** 0.5
    grid = np.linspace(0, 1, 201)
    limits = [paired.SamplingDistribution(1.0, known, seeds - 1).quantile(0.975) for known in grid]
    called = np.abs(means) > errors * np.interp(share / errors**2, grid, limits)
    assert called.mean() <= 0.05 + 3 * (0.05 * 0.95 / count) ** 0.5


def test_simulated_differences_are_found_and_named() -> None:
    kinds = []
    for number in range(60):
        a, b, labels = pair(5, 1000, gain=0.6, seed=number)
        kinds.append(decide(paired.differences(a, b, labels, bins=BINS, resamples=200)["accuracy"], 0.005).kind)
    assert kinds.count("a_better") >= 50
    assert kinds.count("b_better") == 0


def test_the_margin_itself_is_rarely_called_equivalent() -> None:
    """At a difference of exactly the margin, TOST passes in 5 % of all cases."""
    generator = np.random.default_rng(0)
    passed = 0
    for _ in range(2000):
        b = generator.normal(0.97, 0.002, 5)
        a = b + generator.normal(0.005, 0.001, 5)
        found = replace(difference(list(a), list(b)), example_variance=0.0)
        passed += found.p_equivalence(0.005) < 0.05
    assert passed / 2000 == pytest.approx(0.05, abs=0.015)
