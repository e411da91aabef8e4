"""The verdict on a difference: A better, B better, equivalent within the margin, or inconclusive."""

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Literal

from ..evaluation.summary import decimals_beside
from .paired_tests import LEVEL, Difference

Kind = Literal["a_better", "b_better", "equivalent", "inconclusive"]
RESOLUTION = 1e-6
"""Smallest difference of a metric that counts: the rounding of float32 outputs moves a metric by less."""
_POWER = 0.8
"""Chance of a verdict that "about k more seeds would settle it" promises."""
_MOST_SEEDS = 500
"""Largest number of seeds, in all, that is considered."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one metric."""

    kind: Kind
    within_margin: bool
    """Whether the difference is significantly smaller than the margin, whichever arm is better."""
    more_seeds: int | None
    """If inconclusive, about how many more seeds would settle it; None if no number would, on this test split."""
    learned: bool = True
    """Whether an arm has learned; False: neither has, under no seed, so that there is nothing to compare."""


def decide(difference: Difference, margin: float, *, learned: bool = True) -> Verdict:
    """Decide at the 5 % level.

    An arm is better if the 95 % interval excludes 0, and the difference is no mere rounding (`RESOLUTION`). Otherwise
    the arms are equivalent if two one-sided tests (TOST) place the difference within `margin`: the smallest difference
    that matters, > 0, in the metric's unit. One seed decides nothing, because it cannot tell the arm from the luck of
    its initial weights. Arms of which neither has `learned` are alike in that alone, so nothing is decided.
    """
    if not learned:
        return Verdict("inconclusive", False, None, learned=False)
    if difference.seeds == 1:
        return Verdict("inconclusive", False, 2)
    small = difference.p_equivalence(margin) < LEVEL
    if difference.p_value < LEVEL and abs(difference.mean) >= RESOLUTION:
        return Verdict("a_better" if difference.favours_a else "b_better", small, None)
    if small:
        return Verdict("equivalent", True, None)
    return Verdict("inconclusive", False, _more_seeds(difference, margin))


def power(difference: Difference, margin: float, seeds: int) -> float:
    """Return the chance of a conclusive verdict with `seeds` seeds, if mean and variances are as estimated now.

    Approximates the noncentral distribution by the central one, shifted.
    """
    size = abs(difference.mean)
    plain = difference.distribution(seeds)
    at_margin = difference.distribution(seeds, margin=margin)
    needed = at_margin.standard_error * at_margin.quantile(1 - LEVEL)
    if plain.standard_error == 0:
        return float(size > 0 or needed < margin)
    better = plain.cdf(size / plain.standard_error - plain.quantile(1 - LEVEL / 2))
    ends = (margin - size - needed, margin + size - needed)
    return max(better, sum(plain.cdf(end / plain.standard_error) for end in ends) - 1)


def _more_seeds(difference: Difference, margin: float) -> int | None:
    """Find the fewest further seeds with `_POWER` by bisection: power never falls with more seeds.

    Return None if even `_MOST_SEEDS` are too few.
    """
    if power(difference, margin, _MOST_SEEDS) < _POWER:
        return None
    candidates = range(difference.seeds + 1, _MOST_SEEDS + 1)
    first = bisect_left(candidates, True, key=lambda seeds: power(difference, margin, seeds) >= _POWER)
    return candidates[first] - difference.seeds


@dataclass(frozen=True)
class Unit:
    """The unit in which differences of a metric are shown."""

    scale: float
    """Factor from the metric to this unit."""
    name: str
    decimals: int

    def signed(self, value: float) -> str:
        """Format a value of the metric with its sign, without the unit's name; a value that rounds to 0 has no sign."""
        text = f"{self.scale * value:+.{self.decimals}f}"
        return text if float(text) else text[1:]

    def ends(self, interval: tuple[float, float]) -> tuple[str, str]:
        """Format the ends of an interval; one that is not 0 is not shown as 0, as its side of 0 decides."""
        needed = (decimals_beside(self.scale * end, 0, self.decimals) for end in interval)
        low, high = (replace(self, decimals=n).signed(end) for n, end in zip(needed, interval, strict=True))
        return low, high


POINTS = Unit(100, "points", 2)
"""Percentage points: a point is 0.01."""
UNITS = {"accuracy": POINTS, "loss": Unit(1, "nats", 4), "calibration_error": POINTS}


def sentence(verdict: Verdict, difference: Difference, margin: float, a: str, b: str) -> str:
    """Put the verdict and the difference into words, for arms named `a` and `b`."""
    unit = UNITS[difference.metric]
    low, high = unit.ends(difference.interval())
    allowed = f"{unit.scale * margin:g} {unit.name}"
    measured = f"{a} minus {b}: {unit.signed(difference.mean)} {unit.name}, 95 % interval {low} to {high}"
    if verdict.kind in ("a_better", "b_better"):
        name = a if verdict.kind == "a_better" else b
        return (
            f"{name} is better{f', by less than the margin of {allowed}' if verdict.within_margin else ''}. {measured}."
        )
    if verdict.kind == "equivalent":
        p_value = difference.p_equivalence(margin)
        p_text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
        return f"Equivalent within the margin of {allowed}. {measured}; equivalence test {p_text}."
    if not verdict.learned:
        return f"Inconclusive: neither has learned; both are no better than the shares of the classes. {measured}."
    if difference.seeds == 1:
        ahead = f"{a if difference.favours_a else b} is ahead" if difference.mean else "neither is ahead"
        return (
            f"Inconclusive: one seed cannot tell {a} and {b} from the luck of their initial weights; at least 2 more "
            f"are needed. Of these two models {ahead}: {measured}, over the examples alone."
        )
    if verdict.more_seeds is None:
        return (
            f"Inconclusive, and more seeds would not settle it: the test split is too small for a margin of {allowed}. "
            f"{measured}."
        )
    seeds = f"{verdict.more_seeds} more seed{'s' * (verdict.more_seeds > 1)}"
    return f"Inconclusive: about {seeds} would settle it. {measured}."
