"""Figures of a search: best so far, every trial by its values, importance of the keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...core.frameworks import SeriesStyle
from .style import GREY, short, styled, subplots

_MOST_PANELS: Final = 6


@dataclass(frozen=True)
class Axis:
    """A key of the space, as an axis of a figure."""

    title: str
    values: Sequence[int | float | str]
    """That of each complete trial."""
    log: bool
    choices: Sequence[str]
    """All of a choice, in their order; empty: numbers."""


@styled
def best_so_far(accuracies: Mapping[SeriesStyle, Mapping[int, float]], pruned: Sequence[int], trials: int) -> Any:
    """Draw the best validation accuracy of each arm against the number of trials.

    A dot is a complete trial, a stroke on the axis a pruned one. `accuracies`: by arm, in [0, 1] by the trial's number;
    `pruned`: numbers of the pruned ones; `trials`: how many there are in all.
    """
    figure, axis = subplots(figsize=(9.4, 3.8), layout="constrained")
    for style, values in accuracies.items():
        numbers = sorted(values)
        percent = np.array([100 * values[number] for number in numbers])
        best = np.maximum.accumulate(percent)
        ends = [number + 1 for number in numbers]
        axis.step(
            [*ends, trials], [*best, best[-1]], where="post", color=style.colour, lw=style.width, label=style.title
        )
        axis.plot(ends, percent, "o", color=style.colour, ms=3 + style.width, alpha=0.35, mew=0)
    every = np.array([100 * value for values in accuracies.values() for value in values.values()])
    top, low = every.max(), _floor(every)
    at_axis = axis.get_xaxis_transform()
    axis.plot([n + 1 for n in pruned], [0.0] * len(pruned), "|", color=GREY, ms=9, transform=at_axis, label="pruned")
    axis.set(xlabel="trials", ylabel="validation accuracy, %", xlim=(0.5, trials + 0.5))
    axis.set_ylim(low - 0.05 * (top - low) - 0.01, top + 0.08 * (top - low) + 0.01)
    if hidden := int((every < low).sum()):
        axis.text(0.01, 0.06, f"{hidden} dots are below", transform=axis.transAxes, color=GREY, fontsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(accuracies) + 1)
    return figure


@styled
def slices(axes: Sequence[Axis], accuracies: Mapping[SeriesStyle, Sequence[float]]) -> Any:
    """Draw the validation accuracy of each complete trial against the value of each key.

    `accuracies`: by arm, in [0, 1], in the order of `Axis.values`.
    """
    shown = axes[:_MOST_PANELS]
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure, grid = subplots(
        rows, columns, figsize=(9.4, 0.5 + 3 * rows), layout="constrained", sharey=True, squeeze=False
    )
    every = 100 * np.concatenate([np.asarray(values) for values in accuracies.values()])
    top, low = every.max(), _floor(every)
    for panel, key in zip(grid.flat, shown, strict=False):
        for number, (style, values) in enumerate(accuracies.items()):
            panel.plot(
                _places(key, number, len(accuracies)),
                100 * np.asarray(values),
                "o",
                color=style.colour,
                ms=4 + style.width,
                alpha=0.55,
                mew=0,
                label=style.title,
            )
        panel.set_xlabel(key.title)
        if key.choices:
            panel.set_xticks(range(len(key.choices)), [short(choice, 16) for choice in key.choices])
            panel.set_xlim(-0.5, len(key.choices) - 0.5)
        elif key.log:
            panel.set_xscale("log")
            _label_powers(panel.xaxis, [float(value) for value in key.values])
    for panel in list(grid.flat)[len(shown) :]:
        panel.set_axis_off()
    for row in grid:
        row[0].set_ylabel("validation accuracy, %")
    grid[0][0].set_ylim(low - 0.05 * (top - low) - 0.01, top + 0.08 * (top - low) + 0.01)
    grid[0][0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(accuracies))
    return figure


@styled
def importances(values: Mapping[SeriesStyle, Mapping[str, float]]) -> Any:
    """Draw the importance of each key for each arm, as bars; `values`: by arm, in [0, 1] by key."""
    totals: dict[str, float] = {}
    for by_key in values.values():
        for key, value in by_key.items():
            totals[key] = totals.get(key, 0) + value
    keys = sorted(totals, key=lambda key: totals[key])
    height = 0.8 / max(len(values), 1)
    figure, axis = subplots(figsize=(9.4, 0.9 + 0.55 * len(keys)), layout="constrained")
    for number, (style, by_key) in enumerate(values.items()):
        places = np.arange(len(keys)) + 0.4 - height * (number + 0.5)
        lengths = [by_key.get(key, 0) for key in keys]
        axis.barh(places, lengths, height * 0.9, color=style.colour, label=style.title)
        for place, length in zip(places, lengths, strict=True):
            axis.text(length + 0.006, place, f"{length:.0%}", va="center", fontsize=8, color=style.colour)
    axis.set_yticks(range(len(keys)), [short(key, 40) for key in keys])
    axis.grid(visible=False, axis="y")
    axis.set(xlabel="importance", xlim=(0, 1.06))
    axis.legend(loc="lower right")
    return figure


def _places(key: Axis, arm: int, arms: int) -> Sequence[float]:
    """Return where the dots of an arm are along a key: beside those of the other arms, where the values are choices."""
    if not key.choices:
        return [float(value) for value in key.values]
    shift = 0.26 * (arm - (arms - 1) / 2)
    return [list(key.choices).index(str(value)) + shift for value in key.values]


def _label_powers(axis: Any, values: Sequence[float]) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, ..., or at the powers of ten if it has many."""
    from matplotlib import ticker

    decades = np.log10(max(values) / min(values)) if values else 0
    if decades < 0.8:  # no more than one of 1, 2 and 5 may be among them
        axis.set_major_locator(ticker.MaxNLocator(3))
    else:
        axis.set_major_locator(ticker.LogLocator(subs=(1.0,) if decades > 1.3 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _floor(percent: np.ndarray) -> float:
    """Return the lowest value to be shown: the good half of the trials gets most of the height."""
    top, middle = percent.max(), np.median(percent)
    return float(max(percent.min(), top - max(4 * (top - middle), 0.5)))
