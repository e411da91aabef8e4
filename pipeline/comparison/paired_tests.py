"""The paired difference of two arms, with its standard error, interval and tests.

Every difference is A minus B of one metric. Seeds and examples are crossed samples: each seed of each arm is scored on
the same examples. The squared standard error is that of Obuchowski & Rockette (1995), with seeds and examples in place
of their readers and cases: the spread of the differences over the seeds, plus the covariance that all seeds share
because they are scored on the same examples. A bootstrap over the examples measures the second part. The first part
rests on few seeds and the second on many examples; `SamplingDistribution` takes that into account. A percentile
bootstrap over seeds and examples is far too wide or far too narrow with two to five seeds, depending on which of the
two varies more: `tests/calibrate_verdict.py` shows both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from ..evaluation import metrics

HIGHER_IS_BETTER: Final = {"accuracy": True, "loss": False, "calibration_error": False}
LEVEL: Final = 0.05
"""Significance level of every test: a 95 % interval, and for equivalence the 90 % interval of two one-sided tests."""
_ROUNDING: Final = 1e-12
"""Differences of a metric that are closer than this are the same: 0.974 - 0.973 and 0.975 - 0.974 differ by 1e-16."""
_WEIGHTS_AT_ONCE: Final = 20_000_000
"""Bootstrap weights in memory at a time: 160 MB of float64."""


@dataclass(frozen=True)
class SamplingDistribution:
    """Distribution of (truth - estimate) / `standard_error`, given the data.

    The sum of two independent parts, weighted by the roots of their shares: Student's t for the seeds, a standard
    normal for the examples. That is the solution of Behrens (1929) and Fisher (1935) for a sum of two variances that
    are each estimated, here with the second from so many examples that it counts as known. It rejects a true null
    hypothesis no more often than its level says (Robinson 1976), from two seeds on: `tests/calibrate_verdict.py`.
    A Student's t with degrees of freedom by Satterthwaite's rule (Hillis 2007) takes the estimated shares for the true
    ones, and rejects too often: a few seeds that agree closely by chance make the examples' share look large.
    """

    standard_error: float
    """In the metric's unit."""
    example_share: float
    """Share of the squared standard error that comes from the examples, not from the few seeds, in [0, 1]."""
    degrees_of_freedom: int
    """Seeds less one."""

    def cdf(self, value: float) -> float:
        """Return P(x <= value)."""
        from scipy.special import ndtr, stdtr  # scipy.stats takes far longer to import

        if self.example_share in (0, 1):
            return float(ndtr(value) if self.example_share else stdtr(self.degrees_of_freedom, value))
        seeds = (1 - self.example_share) * self.degrees_of_freedom / _chi2(self.degrees_of_freedom)
        return float(ndtr(value / np.sqrt(seeds + self.example_share)).mean())

    def quantile(self, probability: float) -> float:
        """Return the value whose `cdf` is `probability`, in [0.5, 1)."""
        from scipy.optimize import brentq
        from scipy.special import ndtri, stdtrit

        if self.example_share in (0, 1):
            return float(ndtri(probability) if self.example_share else stdtrit(self.degrees_of_freedom, probability))
        half = (1 + probability) / 2  # either part exceeds its quantile with half of the chance, the sum so with less
        upper = float(stdtrit(self.degrees_of_freedom, half) + ndtri(half))
        return float(brentq(lambda value: self.cdf(value) - probability, 0.0, upper, xtol=1e-9))


@dataclass(frozen=True)
class Difference:
    """A minus B of one metric, in the metric's unit (the variances in its square)."""

    metric: str
    a: tuple[float, ...]
    """The metric of A, one value per seed."""
    b: tuple[float, ...]
    """The metric of B under the same seeds."""
    mean: float
    """Mean difference over the seeds."""
    seed_variance: float
    """Sample variance of the difference over the seeds (ddof 1); NaN for one seed."""
    example_variance: float
    """Variance of the mean difference over the examples, which all seeds share: more seeds do not reduce it."""
    examples: int = 0
    """Number of test examples. If it is 0, no margin adds to the standard error."""

    @property
    def seeds(self) -> int:
        """Number of pairs."""
        return len(self.a)

    def distribution(self, seeds: int | None = None, *, margin: float | None = None) -> SamplingDistribution:
        """Return the distribution of the mean difference for these seeds, or for `seeds` seeds of the same spread.

        `margin`: assume that the true difference is this large, which adds to the standard error of accuracy. With one
        seed, the distribution is that of these two models on other examples and says nothing of other seeds.
        """
        examples = self.example_variance
        if margin is not None and self.metric == "accuracy":
            # A difference as large as the margin takes more examples that only one arm gets right than were observed,
            # and each adds to the variance: a score test like McNemar's, with the variance under the hypothesis.
            examples += max(0.0, margin - abs(self.mean)) / self.examples if self.examples else 0.0
        if self.seeds == 1:
            return SamplingDistribution(examples**0.5, 1, 0)
        seeds = seeds or self.seeds
        variance = self.seed_variance / seeds + examples
        return SamplingDistribution(variance**0.5, examples / variance if variance else 1.0, seeds - 1)

    def interval(self) -> tuple[float, float]:
        """Return the two-sided 95 % confidence interval of the difference."""
        distribution = self.distribution()
        half = distribution.standard_error * distribution.quantile(1 - LEVEL / 2)
        return self.mean - half, self.mean + half

    def equivalence_interval(self, margin: float) -> tuple[float, float]:
        """Return the 90 % interval that lies within `margin` exactly if `p_equivalence` is below 5 %."""
        distribution = self.distribution(margin=margin)
        half = distribution.standard_error * distribution.quantile(1 - LEVEL)
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that there is no difference."""
        distribution = self.distribution()
        if distribution.standard_error == 0:
            return float(self.mean == 0)
        return 2 * distribution.cdf(-abs(self.mean) / distribution.standard_error)

    def p_equivalence(self, margin: float) -> float:
        """Return the p-value of a difference of `margin` or more in either direction (TOST, Schuirmann 1987)."""
        room, distribution = margin - abs(self.mean), self.distribution(margin=margin)
        if distribution.standard_error == 0:
            return float(room <= 0)
        return distribution.cdf(-room / distribution.standard_error)

    @property
    def favours_a(self) -> bool:
        """Whether A's mean is the better one."""
        return (self.mean > 0) == HIGHER_IS_BETTER[self.metric]


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact binomial test (1947) of the two models of one seed on the same examples."""

    seed: int
    only_a: int
    """Examples that A alone gets right."""
    only_b: int
    """Examples that B alone gets right."""
    p_value: float
    """Two-sided p-value of the hypothesis that both numbers have the same expectation."""


@dataclass(frozen=True)
class Wins:
    """Probability that A outperforms B under one seed, ties counted half (Bouthillier et al. 2021)."""

    probability: float
    """Share of the seeds, in [0, 1]."""
    low: float
    """Lower end of the 95 % interval, in [0, 1]: exact (Clopper & Pearson 1934); others cover less with few seeds."""
    high: float
    """Upper end of the same interval."""


def differences(
    a: np.ndarray, b: np.ndarray, labels: np.ndarray, *, bins: int, resamples: int, seed: int = 0
) -> dict[str, Difference]:
    """Compute the difference of each metric of `HIGHER_IS_BETTER`.

    `a`, `b`: outputs (S, N, K), row s of both from the same seed; `labels`: int64 (N,); `bins`: of the calibration
    error; `resamples`, `seed`: of the bootstrap over the examples.
    """
    parts = {"accuracy": _hits, "loss": _losses}
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {
        name: (part(a, labels), part(b, labels)) for name, part in parts.items()
    }
    gaps = tuple(np.stack([metrics.calibration_gaps(outputs, labels, bins) for outputs in arm]) for arm in (a, b))
    n = len(labels)
    replicates = _bootstrap(values, gaps, resampling_weights(n, resamples, np.random.default_rng(seed)))
    means = {name: tuple(arm.mean(axis=1) for arm in pair) for name, pair in values.items()}
    means["calibration_error"] = tuple(np.abs(arm.sum(axis=1)).sum(axis=1) / n for arm in gaps)
    return {name: _difference(name, mean_a, mean_b, replicates[name], n) for name, (mean_a, mean_b) in means.items()}


def mcnemar(a: np.ndarray, b: np.ndarray, labels: np.ndarray, seeds: Sequence[int]) -> list[McNemar]:
    """Test the two models of each seed: outputs (S, N, K), labels int64 (N,), `seeds` the S seeds of the rows."""
    from scipy.stats import binomtest

    tests = []
    for seed, hits_a, hits_b in zip(seeds, _hits(a, labels) > 0, _hits(b, labels) > 0, strict=True):
        only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
        p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
        tests.append(McNemar(seed, only_a, only_b, p_value))
    return tests


def wins(difference: Difference) -> Wins:
    """Return the share of the seeds under which A wins, and its interval for other seeds on the same examples."""
    from scipy.special import betaincinv

    signs = np.sign(np.subtract(difference.a, difference.b)) * (1 if HIGHER_IS_BETTER[difference.metric] else -1)
    won, n = float((signs + 1).sum() / 2), len(signs)
    low = float(betaincinv(won, n - won + 1, LEVEL / 2)) if won else 0.0
    high = float(betaincinv(won + 1, n - won, 1 - LEVEL / 2)) if won < n else 1.0
    return Wins(won / n, low, high)


def _difference(name: str, a: np.ndarray, b: np.ndarray, replicates: np.ndarray, examples: int) -> Difference:
    """Split the bootstrap's variance into the part of each seed and the part that all share.

    `a`, `b`: (S,); `replicates`: differences by seed, (resamples, S).
    """
    by_seed = a - b
    seeds = len(by_seed)
    covariances = np.atleast_2d(np.cov(replicates, rowvar=False))
    variance = float(np.trace(covariances)) / seeds
    if seeds == 1:
        return Difference(name, tuple(a), tuple(b), float(by_seed.mean()), float("nan"), variance, examples=examples)
    shared = (float(covariances.sum()) - variance * seeds) / (seeds * (seeds - 1))
    between = float(by_seed.var(ddof=1))
    if np.ptp(by_seed) < _ROUNDING:
        # A coarse metric may give every seed the same difference by chance: then what the examples alone would explain.
        between = max(variance - shared, 0.0)
    return Difference(name, tuple(a), tuple(b), float(by_seed.mean()), between, max(shared, 0.0), examples)


def resampling_weights(n: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the weights of `n` examples in each resample, float64 (up to `resamples`, n), part by part."""
    for start in range(0, resamples, max(1, _WEIGHTS_AT_ONCE // n)):
        count = min(resamples - start, max(1, _WEIGHTS_AT_ONCE // n))
        drawn = generator.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n) / n


def _bootstrap(
    values: Mapping[str, tuple[np.ndarray, np.ndarray]], gaps: tuple[np.ndarray, ...], parts: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the differences by seed on resampled examples, by metric: (resamples, S).

    Both arms and all seeds get the same resampled examples. `values`: by metric, (S, N) of A and of B; `gaps`: those of
    `metrics.calibration_gaps`, (S, N, bins) of A and of B; `parts`: see `resampling_weights`.
    """
    replicates: dict[str, list[np.ndarray]] = {name: [] for name in (*values, "calibration_error")}
    for weights in parts:
        for name, (a, b) in values.items():
            replicates[name].append(weights @ (a - b).T)
        errors = [np.stack([np.abs(weights @ of_seed).sum(axis=1) for of_seed in arm], axis=1) for arm in gaps]
        replicates["calibration_error"].append(errors[0] - errors[1])
    return {name: np.concatenate(rows) for name, rows in replicates.items()}


def _hits(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return 1 for each right prediction and 0 for each wrong one, float64 (S, N)."""
    return np.stack([metrics.predicted_labels(of_seed) == labels for of_seed in outputs]).astype(np.float64)


def _losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the loss of each prediction in nats, float64 (S, N)."""
    return np.stack([metrics.losses(of_seed, labels) for of_seed in outputs])


@lru_cache
def _chi2(degrees_of_freedom: int) -> np.ndarray:
    """Return the middles of 1,000 equally likely parts of the chi-squared distribution, float64 (1000,)."""
    from scipy.special import chdtri

    return np.asarray(chdtri(degrees_of_freedom, 1 - (np.arange(1000) + 0.5) / 1000))
