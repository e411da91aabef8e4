"""Figures: what a person looks at. Colour-blind safe, one colour per framework everywhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLOURS: Final = {"tensorflow": "#D55E00", "pytorch": "#0072B2"}  # Okabe & Ito 2008
_WIDTHS: Final = {"tensorflow": 3.4, "pytorch": 1.4}  # the curves often lie on each other: both stay visible
TITLES: Final = {"tensorflow": "TensorFlow", "pytorch": "PyTorch"}
_STYLE: Final = {
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "font.size": 10,
    "legend.frameon": False,
}


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Loss and accuracy by epoch, a line per framework and split: mean over seeds, band from the lowest to the highest.

    `histories`: by framework, the rows of its `history.csv`.
    """
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
            for framework, rows in histories.items():
                for split, line in (("train", "--"), ("validation", "-")):
                    epochs = sorted({int(row["epoch"]) for row in rows})
                    seeds = [
                        [float(row[name]) for row in rows if int(row["epoch"]) == epoch and row["split"] == split]
                        for epoch in epochs
                    ]
                    values = np.array(seeds)
                    colour, label = COLOURS[framework], f"{TITLES[framework]}, {split}"
                    marker = "o" if len(epochs) == 1 else None
                    width = _WIDTHS[framework]
                    axis.plot(epochs, values.mean(axis=1), line, color=colour, label=label, marker=marker, lw=width)
                    axis.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.15, lw=0)
            axis.set(xlabel="epoch", ylabel=name)
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set_yscale("log")
        axes[1].legend(loc="lower right")
        figure.savefig(path)
        plt.close(figure)
    return path


def deviations(lines: Mapping[str, np.ndarray], limits: Mapping[str, float], path: Path) -> Path:
    """Relative deviation of the two frameworks' losses by optimiser step, a line and a limit (dotted) per precision."""
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
        for colour, (precision, values) in zip(("#009E73", "#CC79A7"), lines.items(), strict=False):
            shown = np.where(values > 0, values, np.nan)  # equal losses have no place on a logarithmic axis
            axis.plot(range(1, len(values) + 1), shown, "o", color=colour, label=precision, markersize=4)
            axis.axhline(limits[precision], color=colour, ls=":", lw=1.2)
            axis.text(1, limits[precision], f"limit of {precision}", color=colour, va="bottom", fontsize=8)
        axis.set(xlabel="optimiser step", ylabel="relative difference of the loss", yscale="log", ylim=(2e-17, 1))
        axis.set_title("TensorFlow and PyTorch, step by step")
        if lines:
            axis.legend(loc="upper right", ncols=2)
        figure.savefig(path)
        plt.close(figure)
    return path


def confusion(matrix: np.ndarray, classes: Sequence[str], framework: str, path: Path) -> Path:
    """Counts by actual (row) and predicted class; the colour shows the mistakes, which the diagonal would drown."""
    mistakes = matrix - np.diag(np.diag(matrix))
    with plt.rc_context(_STYLE | {"axes.grid": False}):
        figure, axis = plt.subplots(figsize=(6.2, 5.4), layout="constrained")
        image = axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1, mistakes.max()))
        for row, column in np.argwhere(matrix > 0):
            count = matrix[row, column]
            dark = row != column and mistakes[row, column] > 0.6 * mistakes.max()
            colour = "#888888" if row == column else "white" if dark else "black"
            axis.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(len(classes)), classes)
        axis.set_yticks(range(len(classes)), classes)
        accuracy = np.trace(matrix) / matrix.sum()
        axis.set(xlabel="predicted", ylabel="actual", title=f"{TITLES[framework]}: {accuracy:.2%} right, all seeds")
        figure.colorbar(image, ax=axis, label="mistakes", shrink=0.8)
        figure.savefig(path)
        plt.close(figure)
    return path


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int, framework: str, path: Path) -> Path:
    """Accuracy by confidence in equal-width bins, above the count of predictions in each (log scale)."""
    edges = np.linspace(0, 1, bins + 1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    accuracy = np.bincount(index, correct, bins) / np.maximum(counts, 1)
    centres, width = (edges[:-1] + edges[1:]) / 2, 1 / bins
    with plt.rc_context(_STYLE):
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=(5, 5.6), sharex=True, height_ratios=(3, 1), layout="constrained"
        )
        top.plot([0, 1], [0, 1], color="#888888", lw=1, ls=":", label="calibrated")
        seen = counts > 0
        top.bar(
            centres[seen],
            accuracy[seen],
            width * 0.92,
            color=COLOURS[framework],
            alpha=0.85,
            label="accuracy",
        )
        top.set(ylabel="accuracy", ylim=(0, 1), title=f"{TITLES[framework]}: does confidence mean accuracy?")
        top.legend(loc="upper left")
        bottom.bar(centres, counts, width * 0.92, color="#bbbbbb")
        bottom.set(xlabel="confidence", ylabel="predictions", yscale="log", xlim=(0, 1))
        figure.savefig(path)
        plt.close(figure)
    return path
