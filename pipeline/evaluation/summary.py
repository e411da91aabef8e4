"""Means of repeated measurements, with their confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MORE_DECIMALS = 2


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation and 95 % confidence interval of the mean (Student's t).

    If n = 1, all but the mean are NaN.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int


def summarise(values: Sequence[float] | np.ndarray) -> Summary:
    """Summarise n >= 1 independent measurements, such as one per seed."""
    array = np.asarray(values, np.float64)
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Summary(mean, float("nan"), float("nan"), float("nan"), 1)
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes far longer to import

    std = float(array.std(ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * std / n**0.5
    return Summary(mean, std, mean - half, mean + half, n)


def percent(share: float) -> float:
    """Return a share in [0, 1] as a percentage with two decimals: for tables that people read."""
    return round(100 * share, 2)


@dataclass(frozen=True)
class Ratio:
    """Geometric mean of paired ratios with its 95 % confidence interval (Student's t on their logarithms)."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def ends(self) -> tuple[str, str]:
        """The ends of the interval as they are shown."""
        low, high = (f"{end:.{decimals_beside(end, 1, 2)}f}" for end in (self.low, self.high))
        return low, high


def decimals_beside(value: float, null: float, usual: int) -> int:
    """Return with how many decimals to show the end of an interval: its side of `null` decides, so it must be seen.

    At most `_MORE_DECIMALS` more than the usual number; the usual one if no more would show it.
    """
    tried = range(usual, usual + _MORE_DECIMALS + 1)
    return next((decimals for decimals in tried if round(value, decimals) != null), usual)


def geometric_ratio(ratios: Sequence[float] | np.ndarray) -> Ratio:
    """Summarise n >= 2 ratios, each > 0."""
    logs = summarise(np.log(ratios))
    mean, low, high = np.exp([logs.mean, logs.low, logs.high])
    return Ratio(float(mean), float(low), float(high), logs.n)
