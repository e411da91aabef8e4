"""Two sides, seed by seed and example by example: how large the difference is, and how sure of it we may be.

Every difference is A minus B of one metric. Seeds and examples are both samples, crossed: each seed of each side is
scored on the same examples. The squared standard error is that of Obuchowski & Rockette (1995) for readers and cases,
here seeds and examples: the spread of the differences over the seeds, plus what all seeds have in common because they
were scored on the same examples, which a bootstrap over the examples measures. The first part is estimated from few
seeds, the second from many examples; `Reference` is the distribution that this leaves the estimate. A percentile
bootstrap over seeds and examples is far too wide or too narrow with the three to five seeds that people can afford, by
what varies more: `tests/calibrate_verdict.py` shows both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from ..evaluation import metrics

HIGHER_IS_BETTER: Final = {"accuracy": True, "loss": False, "calibration_error": False}
LEVEL: Final = 0.05
"""Of every test: a 95 % interval, and for equivalence the 90 % interval of two one-sided tests."""
_WEIGHTS_AT_ONCE: Final = 20_000_000  # of the bootstrap: 160 MB


@dataclass(frozen=True)
class Reference:
    """How (estimate - truth) / error is distributed: normal over sqrt((1 - known) * chi2 / freedom + known).

    Student's t where nothing of the squared error is known, normal where all of it is. Hillis (2007) puts a t with more
    degrees of freedom in its place, which with three seeds rejects in 3 to 8 % of the cases instead of 5.
    """

    error: float
    known: float
    """Share of the squared error that does not rest on the few seeds, in [0, 1]."""
    freedom: int
    """Seeds less one."""

    def below(self, value: float) -> float:
        """P(x <= value)."""
        from scipy.special import ndtr, stdtr  # scipy.stats takes far longer to import

        if self.known in (0, 1):
            return float(ndtr(value) if self.known else stdtr(self.freedom, value))
        return float(ndtr(value * np.sqrt((1 - self.known) * _chi2(self.freedom) / self.freedom + self.known)).mean())

    def quantile(self, probability: float) -> float:
        """Where `below` is `probability`, which is in [0.5, 1): between the normal's quantile and Student's."""
        from scipy.optimize import brentq
        from scipy.special import ndtri, stdtrit

        normal = float(ndtri(probability))
        if self.known in (0, 1):
            return normal if self.known else float(stdtrit(self.freedom, probability))
        most = 1.01 * float(stdtrit(self.freedom, probability)) + 0.01
        return float(brentq(lambda value: self.below(value) - probability, 0.99 * normal - 0.01, most, xtol=1e-9))


@dataclass(frozen=True)
class Difference:
    """A minus B of one metric, in the metric's unit."""

    metric: str
    a: tuple[float, ...]
    """By seed, as `b`."""
    b: tuple[float, ...]
    mean: float
    seed_variance: float
    """Variance of the mean difference from one seed to another; NaN for one seed."""
    example_variance: float
    """Variance of the mean difference that more seeds would not take away: that of the examples."""
    noise_variance: float = 0.0
    """What the examples alone make of `seed_variance`: its expectation where no seed is better than another."""
    examples: int = 0

    @property
    def seeds(self) -> int:
        """Number of pairs."""
        return len(self.a)

    def reference(self, seeds: int | None = None, *, margin: float | None = None) -> Reference:
        """For these seeds, or for so many; `margin`: were the true difference as large as that.

        For one seed: of these two models on other examples, which says nothing of other seeds.
        """
        examples = self.example_variance
        if margin is not None and self.metric == "accuracy":
            # so large a difference takes more examples that only one side gets right than were seen, each of which
            # adds its part (a score test: McNemar's, with the variance under the hypothesis)
            examples += max(0.0, margin - abs(self.mean)) / self.examples if self.examples else 0.0
        if self.seeds == 1:
            return Reference(examples**0.5, 1, 0)
        seeds = seeds or self.seeds
        # Where few seeds happen to lie close together, the share of the examples looks larger than it is. Raised so
        # far, the test finds differences that are not there in 4 to 6 % of simulated cases, for 3 seeds and more.
        raised = self.seed_variance * ((self.seeds + 1) / (self.seeds - 1)) ** 2
        between = max(raised, self.noise_variance) / seeds
        known = examples / (between + examples) if between else 1.0
        return Reference((self.seed_variance / seeds + examples) ** 0.5, known, seeds - 1)

    def interval(self) -> tuple[float, float]:
        """The two-sided 95 % confidence interval of the difference."""
        reference = self.reference()
        half = reference.error * reference.quantile(1 - LEVEL / 2)
        return self.mean - half, self.mean + half

    def equivalence_interval(self, margin: float) -> tuple[float, float]:
        """Lies within `margin` just where `p_equivalence` is below 5 %: a 90 % interval."""
        reference = self.reference(margin=margin)
        half = reference.error * reference.quantile(1 - LEVEL)
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """Of the hypothesis that there is no difference, two-sided."""
        reference = self.reference()
        if reference.error == 0:
            return float(self.mean == 0)
        return 2 * reference.below(-abs(self.mean) / reference.error)

    def p_equivalence(self, margin: float) -> float:
        """Of the hypothesis that the difference is `margin` or more, in either direction (TOST, Schuirmann 1987)."""
        room, reference = margin - abs(self.mean), self.reference(margin=margin)
        if reference.error == 0:
            return float(room <= 0)
        return reference.below(-room / reference.error)

    @property
    def favours_a(self) -> bool:
        """Whether A's mean is the better one."""
        return (self.mean > 0) == HIGHER_IS_BETTER[self.metric]


@dataclass(frozen=True)
class McNemar:
    """Two models on the same examples: who is right where the other is wrong (McNemar 1947, exact binomial test)."""

    seed: int
    only_a: int
    only_b: int
    p_value: float


@dataclass(frozen=True)
class Wins:
    """How often A beats B under one seed, ties half: the probability of outperforming (Bouthillier et al. 2021)."""

    probability: float
    low: float
    """95 % interval (Wilson 1927)."""
    high: float


def differences(
    a: np.ndarray, b: np.ndarray, labels: np.ndarray, *, bins: int, resamples: int, seed: int = 0
) -> dict[str, Difference]:
    """By metric, of outputs (S, N, K), row s of both under one seed, and labels int64 (N,)."""
    parts = {"accuracy": _hits, "loss": _losses}
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {
        name: (part(a, labels), part(b, labels)) for name, part in parts.items()
    }
    gaps = tuple(np.stack([metrics.calibration_gaps(outputs, labels, bins) for outputs in side]) for side in (a, b))
    replicates = _bootstrap(values, gaps, resamples, np.random.default_rng(seed))
    n = len(labels)
    means = {name: tuple(side.mean(axis=1) for side in pair) for name, pair in values.items()}
    means["calibration_error"] = tuple(np.abs(side.sum(axis=1)).sum(axis=1) / n for side in gaps)
    return {name: _difference(name, side_a, side_b, replicates[name], n) for name, (side_a, side_b) in means.items()}


def mcnemar(a: np.ndarray, b: np.ndarray, labels: np.ndarray, seeds: Sequence[int]) -> list[McNemar]:
    """One test per seed, of outputs (S, N, K) and labels int64 (N,)."""
    from scipy.stats import binomtest

    tests = []
    for seed, hits_a, hits_b in zip(seeds, _hits(a, labels) > 0, _hits(b, labels) > 0, strict=True):
        only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
        p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
        tests.append(McNemar(seed, only_a, only_b, p_value))
    return tests


def wins(difference: Difference) -> Wins:
    """Of the seeds at hand, and what that says of other seeds on the same examples."""
    from scipy.special import ndtri

    signs = np.sign(np.subtract(difference.a, difference.b)) * (1 if HIGHER_IS_BETTER[difference.metric] else -1)
    share, n, z = float((signs + 1).mean() / 2), len(signs), float(ndtri(1 - LEVEL / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return Wins(share, max(0.0, centre - half), min(1.0, centre + half))


def _difference(name: str, a: np.ndarray, b: np.ndarray, replicates: np.ndarray, examples: int) -> Difference:
    by_seed = a - b
    seeds = len(by_seed)
    covariance = np.atleast_2d(np.cov(replicates, rowvar=False))
    own = float(np.trace(covariance)) / seeds
    if seeds == 1:
        return Difference(name, tuple(a), tuple(b), float(by_seed.mean()), float("nan"), own, examples=examples)
    shared = (float(covariance.sum()) - own * seeds) / (seeds * (seeds - 1))
    between = float(by_seed.var(ddof=1))
    noise = max(own - shared, 0.0)
    between = between or noise  # equal in every seed by the coarseness of the metric
    return Difference(name, tuple(a), tuple(b), float(by_seed.mean()), between, max(shared, 0.0), noise, examples)


def _bootstrap(
    values: Mapping[str, tuple[np.ndarray, np.ndarray]],
    gaps: tuple[np.ndarray, ...],
    resamples: int,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Differences by seed on resampled examples, the same examples for both sides and all seeds: (resamples, S)."""
    n = gaps[0].shape[1]
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*values, "calibration_error")}
    for start in range(0, resamples, max(1, _WEIGHTS_AT_ONCE // n)):
        count = min(resamples - start, max(1, _WEIGHTS_AT_ONCE // n))
        drawn = generator.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n) / n
        for name, (a, b) in values.items():
            found[name].append(weights @ (a - b).T)
        errors = [np.stack([np.abs(weights @ of_seed).sum(axis=1) for of_seed in side], axis=1) for side in gaps]
        found["calibration_error"].append(errors[0] - errors[1])
    return {name: np.concatenate(rows) for name, rows in found.items()}


def _hits(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([metrics.predicted_labels(of_seed) == labels for of_seed in outputs]).astype(np.float64)


def _losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([metrics.losses(of_seed, labels) for of_seed in outputs])


@lru_cache
def _chi2(freedom: int) -> np.ndarray:
    """The middles of 1,000 equally likely parts of the distribution."""
    from scipy.special import chdtri

    return np.asarray(chdtri(freedom, 1 - (np.arange(1000) + 0.5) / 1000))
