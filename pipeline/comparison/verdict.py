"""What a difference comes to: A better, B better, equivalent within the margin, or inconclusive."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

from .paired_tests import LEVEL, Difference

Kind = Literal["a_better", "b_better", "equivalent", "inconclusive"]
_POWER = 0.8  # with which "about k more seeds" would settle it, were the difference what it looks like now
_MOST_SEEDS = 500


@dataclass(frozen=True)
class Verdict:
    """Of one metric."""

    kind: Kind
    within_margin: bool
    """Better, but certainly by less than the margin."""
    more_seeds: int | None
    """Where inconclusive: about so many would settle it; None: no number of seeds would, on this test split."""


def decide(difference: Difference, margin: float) -> Verdict:
    """Decide at the 5 % level.

    A side is better where the 95 % interval leaves out 0; otherwise the two are equivalent where two one-sided tests
    (TOST) place the difference within `margin`, the smallest difference that matters, in the metric's unit, > 0.
    One seed decides nothing: it cannot tell the side from the luck of its initial weights.
    """
    if difference.seeds == 1:
        return Verdict("inconclusive", False, 2)
    small = difference.p_equivalence(margin) < LEVEL
    if difference.p_value < LEVEL:
        return Verdict("a_better" if difference.favours_a else "b_better", small, None)
    if small:
        return Verdict("equivalent", True, None)
    return Verdict("inconclusive", False, _more_seeds(difference, margin))


def power(difference: Difference, margin: float, seeds: int) -> float:
    """Chance of a verdict other than inconclusive with so many seeds, if mean and variances are as they look now.

    The noncentral distribution is taken as a shifted one.
    """
    size, plain, at_margin = (
        abs(difference.mean),
        difference.reference(seeds),
        difference.reference(seeds, margin=margin),
    )
    needed = at_margin.error * at_margin.quantile(1 - LEVEL)
    if plain.error == 0:
        return float(size > 0 or needed < margin)
    better = plain.below(size / plain.error - plain.quantile(1 - LEVEL / 2))
    ends = (margin - size - needed, margin + size - needed)
    return max(better, sum(plain.below(end / plain.error) for end in ends) - 1)


def _more_seeds(difference: Difference, margin: float) -> int | None:
    """The fewest that are enough, by bisection: more seeds never make it less sure."""
    if power(difference, margin, _MOST_SEEDS) < _POWER:
        return None
    candidates = range(difference.seeds + 1, _MOST_SEEDS + 1)
    first = bisect_left(candidates, True, key=lambda seeds: power(difference, margin, seeds) >= _POWER)
    return candidates[first] - difference.seeds


@dataclass(frozen=True)
class Unit:
    """How differences of a metric are written."""

    scale: float
    name: str
    decimals: int

    def signed(self, value: float) -> str:
        """With its sign, without the unit's name."""
        text = f"{self.scale * value:+.{self.decimals}f}"
        return text if float(text) else text[1:]


POINTS = Unit(100, "points", 2)
"""A point is a hundredth."""
UNITS = {"accuracy": POINTS, "loss": Unit(1, "nats", 4), "calibration_error": POINTS}


def sentence(verdict: Verdict, difference: Difference, margin: float, a: str, b: str) -> str:
    """The verdict in words, with the difference, for sides named `a` and `b`."""
    unit = UNITS[difference.metric]
    low, high = (unit.signed(end) for end in difference.interval())
    allowed = f"{unit.scale * margin:g} {unit.name}"
    measured = f"{a} minus {b}: {unit.signed(difference.mean)} {unit.name}, 95 % interval {low} to {high}"
    if verdict.kind in ("a_better", "b_better"):
        name = a if verdict.kind == "a_better" else b
        return (
            f"{name} is better{f', by less than the margin of {allowed}' if verdict.within_margin else ''}. {measured}."
        )
    if verdict.kind == "equivalent":
        p_value = difference.p_equivalence(margin)
        said = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
        return f"Equivalent within the margin of {allowed}. {measured}; equivalence test {said}."
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
