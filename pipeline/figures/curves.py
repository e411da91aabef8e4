"""What happened step by step and epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .looks import Look
from .style import styled, subplots


@styled
def learning_curves(histories: Mapping[Look, Sequence[Mapping[str, Any]]]) -> Any:
    """Loss and accuracy by epoch, a line per side and split: mean over seeds, band from the lowest to the highest.

    `histories`: by side, the rows of its `history.csv`.
    """
    figure, axes = subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for look, rows in histories.items():
            for split, line in (("train", "--"), ("validation", "-")):
                epochs = sorted({int(row["epoch"]) for row in rows})
                seeds = [
                    [float(row[name]) for row in rows if int(row["epoch"]) == epoch and row["split"] == split]
                    for epoch in epochs
                ]
                values = np.array(seeds)
                label = f"{look.title}, {split}"
                marker = "o" if len(epochs) == 1 else None
                axis.plot(
                    epochs, values.mean(axis=1), line, color=look.colour, label=label, marker=marker, lw=look.width
                )
                axis.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=look.colour, alpha=0.15, lw=0)
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_yscale("log")
    axes[1].legend(loc="lower right")
    return figure


@styled
def deviations(lines: Mapping[str, np.ndarray], limits: Mapping[str, float]) -> Any:
    """Relative deviation of the two frameworks' losses by optimiser step, a line and a limit (dotted) per precision."""
    figure, axis = subplots(figsize=(7, 3.8), layout="constrained")
    for colour, (precision, values) in zip(("#009E73", "#CC79A7"), lines.items(), strict=False):
        shown = np.where(values > 0, values, np.nan)  # equal losses have no place on a logarithmic axis
        axis.plot(range(1, len(values) + 1), shown, "o", color=colour, label=precision, markersize=4)
        axis.axhline(limits[precision], color=colour, ls=":", lw=1.2)
        axis.text(1, limits[precision], f"limit of {precision}", color=colour, va="bottom", fontsize=8)
    axis.set(xlabel="optimiser step", ylabel="relative difference of the loss", yscale="log", ylim=(2e-17, 1))
    axis.set_title("TensorFlow and PyTorch, step by step")
    if lines:
        axis.legend(loc="upper right", ncols=2)
    return figure
