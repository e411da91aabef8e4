"""Two arms in one figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...comparison.paired_tests import HIGHER_IS_BETTER, Difference
from ...comparison.result import PairSpeed
from ...comparison.verdict import UNITS
from ...core.frameworks import SeriesStyle
from ...evaluation.summary import Ratio
from .evaluation import draw_confusion, draw_reliability
from .style import GREY, styled, subplots


@styled
def differences(rows: Sequence[tuple[str, Difference, float]], a: SeriesStyle, b: SeriesStyle) -> Any:
    """Draw a row per metric: the difference of each seed (dots), its mean and its intervals, in units of the margin.

    The band of equivalence is shaded, the 95 % interval thin, the 90 % interval of the equivalence test thick. A is
    better to the right, also for metrics of which less is better. `rows`: title, difference and margin of each metric.
    """
    figure, axis = subplots(figsize=(8.6, 0.85 * len(rows) + 1.3), layout="constrained")
    reach = 1.6
    names = []
    for y, (title, difference, margin) in enumerate(rows):
        towards_a = (1 if HIGHER_IS_BETTER[difference.metric] else -1) / margin
        unit = UNITS[difference.metric]
        intervals = (difference.interval(), difference.equivalence_interval(margin))
        ends, inner = ([towards_a * end for end in interval] for interval in intervals)
        dots = towards_a * np.subtract(difference.a, difference.b)
        mean = towards_a * difference.mean
        reach = max(reach, 1.1 * float(np.abs([*dots, *ends]).max()))
        ahead = a if mean > 0 else b
        axis.plot(ends, [y, y], color=ahead.colour, lw=2, alpha=0.7)
        axis.plot(inner, [y, y], color=ahead.colour, lw=6, solid_capstyle="butt", alpha=0.45)
        axis.plot(dots, np.full(len(dots), y + 0.2), "o", color=GREY, markersize=4, alpha=0.8)
        axis.plot(mean, y, "o", color=ahead.colour, markersize=9)
        size = f"{abs(unit.scale * mean * margin):.{unit.decimals}f}"
        text = f"{ahead.title} ahead by {size} {unit.name}" if float(size) else "no difference"
        axis.annotate(text, (mean, y), (0, 9), textcoords="offset points", ha="center", fontsize=9)
        names.append(f"{title}\nmargin {unit.scale * margin:g} {unit.name}")
    axis.axvspan(-1, 1, color="#009E73", alpha=0.10, lw=0)
    axis.axvline(0, color="#333a45", lw=1)
    axis.text(0, -0.62, "equivalent within the margin", ha="center", va="center", fontsize=8.5, color="#00734f")
    reach = min(reach, 12)
    axis.set(yticks=range(len(rows)), yticklabels=names, ylim=(len(rows) - 0.4, -0.85), xlim=(-reach, reach))
    axis.set_xlabel(f"\u2190 {b.title} better        advantage in units of the margin        {a.title} better \u2192")
    axis.grid(visible=False, axis="y")
    return figure


@styled
def confusions(matrices: Mapping[SeriesStyle, np.ndarray], classes: Sequence[str]) -> Any:
    """Draw confusion matrices int64 (K, K) side by side, on one colour scale."""
    figure, axes = subplots(1, len(matrices), figsize=(11, 5.2), layout="constrained")
    most = max(int((m - np.diag(np.diag(m))).max()) for m in matrices.values())
    image = None
    for axis, (style, matrix) in zip(axes, matrices.items(), strict=True):
        image = draw_confusion(axis, matrix, classes, most)
        axis.set_title(f"{style.title}: {np.trace(matrix) / matrix.sum():.2%} right", color=style.colour)
    figure.colorbar(image, ax=axes, label="mistakes", shrink=0.75)
    return figure


@styled
def reliability(arms: Mapping[SeriesStyle, tuple[np.ndarray, np.ndarray]], bins: int) -> Any:
    """Draw accuracy by confidence, the arms' bars next to each other: outputs (M, K) and labels (M,) of each arm."""
    figure, (top, bottom) = subplots(2, 1, figsize=(8.6, 5), sharex=True, height_ratios=(3, 1), layout="constrained")
    draw_reliability(top, bottom, arms, bins)
    return figure


@styled
def speed(measured: PairSpeed, a: SeriesStyle, b: SeriesStyle) -> Any:
    """Draw the speed ratio of each restart (dots) and round (points), and its mean with the 95 % interval.

    A is faster to the right.
    """
    kinds = list(measured.ratios)
    figure, axis = subplots(figsize=(8.6, 0.75 * len(kinds) + 1.2), layout="constrained")
    for y, kind in enumerate(kinds):
        ratio, by_round, by_restart = measured.ratios[kind], measured.rounds[kind], measured.by_restart[kind]
        ahead = a if ratio.mean > 1 else b
        axis.plot([ratio.low, ratio.high], [y, y], color=ahead.colour, lw=5, solid_capstyle="round", alpha=0.45)
        axis.plot(by_round, np.full(len(by_round), y) + 0.31, ".", color=GREY, markersize=3, alpha=0.6)
        axis.plot(by_restart, np.full(len(by_restart), y) + 0.2, "o", color=GREY, markersize=4.5, alpha=0.8)
        axis.plot(ratio.mean, y, "o", color=ahead.colour, markersize=9)
        times = max(ratio.mean, 1 / ratio.mean)
        axis.annotate(
            f"{ahead.title} {times:.2f}\u00d7",
            (ratio.mean, y),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    reach = 1.15 * max(1.3, *(_times(r) for r in measured.ratios.values()))
    ticks = [t for t in (0.1, 0.2, 0.5, 0.67, 1, 1.5, 2, 5, 10) if 1 / reach < t < reach]
    axis.axvline(1, color="#333a45", lw=1)
    axis.set(xscale="log", xlim=(1 / reach, reach), yticks=range(len(kinds)), yticklabels=kinds)
    axis.set(ylim=(len(kinds) - 0.4, -0.7))
    axis.set_xticks(ticks, [f"{t:g}\u00d7" for t in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel(f"\u2190 {b.title} faster        speed ratio        {a.title} faster \u2192")
    axis.grid(visible=False, axis="y")
    return figure


def _times(ratio: Ratio) -> float:
    """Return how far the axis must reach for a ratio; a very long interval, as of two restarts, is cut off."""
    return min(max(ratio.high, 1 / ratio.low), 4 * max(ratio.mean, 1 / ratio.mean))
