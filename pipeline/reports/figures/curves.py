"""Curves over epochs and optimiser steps."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Final

import numpy as np

from ...core.frameworks import SeriesStyle
from ...training.results import HistoryRow
from .style import styled, subplots

_COLOURS: Final = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of the palette of Okabe & Ito 2008, which colour-blind people tell apart."""


@styled
def learning_curves(histories: Mapping[SeriesStyle, Sequence[HistoryRow]]) -> Any:
    """Draw loss and accuracy by epoch, a line per arm and split: mean over the seeds, band from lowest to highest.

    `histories`: the rows of `history.csv`, by arm.
    """
    figure, axes = subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for style, rows in histories.items():
            for split, line in (("train", "--"), ("validation", "-")):
                epochs = sorted({row.epoch for row in rows})
                seeds = [
                    [getattr(row, name) for row in rows if row.epoch == epoch and row.split == split]
                    for epoch in epochs
                ]
                values = np.array(seeds)
                label = f"{style.title}, {split}"
                marker = "o" if len(epochs) == 1 else None
                axis.plot(
                    epochs, values.mean(axis=1), line, color=style.colour, label=label, marker=marker, lw=style.width
                )
                axis.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=style.colour, alpha=0.15, lw=0)
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_yscale("log")
    axes[1].legend(loc="lower right")
    return figure


@styled
def deviations(lines: Mapping[str, tuple[np.ndarray, float]], title: str) -> Any:
    """Draw the relative deviation of two losses by optimiser step, and its limit (dotted).

    `lines`: deviations float64 (steps,) and limit, by label.
    """
    figure, axis = subplots(figsize=(7, 3.8), layout="constrained")
    for colour, (label, (values, limit)) in zip(cycle(_COLOURS), lines.items(), strict=False):
        shown = np.where(values > 0, values, np.nan)  # equal losses have no place on a logarithmic axis
        axis.plot(range(1, len(values) + 1), shown, "o", color=colour, label=label, markersize=4)
        axis.axhline(limit, color=colour, ls=":", lw=1.2)
        axis.text(1, limit, f"limit of {label}", color=colour, va="bottom", fontsize=8)
    axis.set(xlabel="optimiser step", ylabel="relative difference of the loss", yscale="log", ylim=(2e-17, 1))
    axis.set_title(title)
    if lines:
        axis.legend(loc="upper right", ncols=2)
    return figure
