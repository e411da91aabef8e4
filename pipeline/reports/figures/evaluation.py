"""How good the predictions of one arm are: confusion, calibration, scores by class, the worst mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...core.frameworks import SeriesStyle
from ...data.array_file import ArrayFile
from ...evaluation import metrics
from .fonts import left_to_right
from .style import GREY, short, styled, subplots

_MOST_CLASSES = 25
"""Classes whose names and counts fit into a figure."""


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], style: SeriesStyle) -> Any:
    """Draw counts by actual (row) and predicted class (column), int64 (K, K); the colour shows mistakes only."""
    figure, axis = subplots(figsize=(6.2, 5.4), layout="constrained")
    image = draw_confusion(axis, matrix, classes)
    axis.set_title(f"{style.title}: {np.trace(matrix) / matrix.sum():.2%} right")
    figure.colorbar(image, ax=axis, label="mistakes", shrink=0.8)
    return figure


def draw_confusion(axis: Any, matrix: np.ndarray, classes: Sequence[str], most: int | None = None) -> Any:
    """Draw a confusion matrix into `axis`; return the image, for a colour bar.

    The colour scale ends at `most` mistakes (default: the largest number in a cell). The diagonal has no colour, as it
    would drown the mistakes.
    """
    mistakes = matrix - np.diag(np.diag(matrix))
    most = max(1, mistakes.max() if most is None else most)
    image = axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=most)
    axis.grid(visible=False)
    if len(classes) <= _MOST_CLASSES:
        for row, column in np.argwhere(matrix > 0):
            count = matrix[row, column]
            dark = row != column and count > 0.6 * most
            colour = GREY if row == column else "white" if dark else "black"
            axis.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
        turned = max(map(len, classes)) > 3
        turn: dict[str, Any] = {"rotation": 45, "ha": "right"} if turned else {}
        axis.set_xticks(range(len(classes)), classes, parse_math=False, **turn)  # a name may hold a dollar
        axis.set_yticks(range(len(classes)), classes, parse_math=False)
    axis.set(xlabel="predicted", ylabel="actual")
    return image


@styled
def reliability(outputs: np.ndarray, labels: np.ndarray, bins: int, style: SeriesStyle) -> Any:
    """Draw accuracy by confidence in equal-width bins, above the number of predictions in each (log scale).

    `outputs`: (M, K); `labels`: int64 (M,).
    """
    figure, (top, bottom) = subplots(2, 1, figsize=(5.2, 5.4), sharex=True, height_ratios=(3, 1), layout="constrained")
    error = metrics.score(outputs, labels, bins).calibration_error
    draw_reliability(top, bottom, {style: (outputs, labels)}, bins)
    top.set_title(f"{style.title}: calibration error {error:.4f}")
    return figure


def draw_reliability(
    top: Any, bottom: Any, arms: Mapping[SeriesStyle, tuple[np.ndarray, np.ndarray]], bins: int
) -> None:
    """Draw accuracy by confidence into two axes; the bars of several arms stand next to each other.

    `arms`: outputs (M, K) and labels int64 (M,) of each.
    """
    edges = np.linspace(0, 1, bins + 1)
    centres, width = (edges[:-1] + edges[1:]) / 2, 0.92 / bins / len(arms)
    top.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="calibrated")
    for position, (style, (outputs, labels)) in enumerate(arms.items()):
        correct = metrics.predicted_labels(outputs) == labels
        index = np.minimum((metrics.confidence(outputs) * bins).astype(int), bins - 1)
        counts = np.bincount(index, minlength=bins)
        accuracy = np.bincount(index, correct, bins) / np.maximum(counts, 1)
        occupied = counts > 0
        at = centres + (position - (len(arms) - 1) / 2) * width
        top.bar(at[occupied], accuracy[occupied], width, color=style.colour, alpha=0.85, label=style.title)
        bottom.bar(at, counts, width, color=style.colour, alpha=0.5)
    top.set(ylabel="accuracy", ylim=(0, 1.02))
    top.legend(loc="upper left")
    bottom.set(xlabel="confidence", ylabel="predictions", yscale="log", xlim=(0, 1))


@styled
def per_class(matrix: np.ndarray, classes: Sequence[str], style: SeriesStyle) -> Any:
    """Draw precision and recall of the 50 classes with the lowest F1, worst first, from a matrix int64 (K, K).

    The axis starts just below the lowest value, so that small differences show.
    """
    values = metrics.per_class(matrix)
    order = np.argsort(values["f1"])[: 2 * _MOST_CLASSES]
    figure, axis = subplots(figsize=(6.2, max(2.6, 0.34 * len(order) + 1)), layout="constrained")
    at = np.arange(len(order))
    for name, offset, alpha in (("recall", -0.2, 0.95), ("precision", 0.2, 0.45)):
        shown = values[name][order]
        axis.barh(at + offset, shown, 0.38, color=style.colour, alpha=alpha, label=name)
        for y, value in zip(at + offset, shown, strict=True):
            axis.text(value, y, f" {100 * value:.1f}", va="center", fontsize=8, color="#333a45")
    low = min(values["recall"][order].min(), values["precision"][order].min())
    low = max(0.0, np.floor((low - 0.02) * 20) / 20)
    axis.set_yticks(at, [classes[i] for i in order], parse_math=False)
    axis.set(xlim=(low, 1 + 0.06 * (1 - low)), ylabel="class")
    axis.set_title(f"{style.title}: recall and precision by class, %")
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def mistakes(
    images: np.ndarray | ArrayFile, labels: np.ndarray, outputs: np.ndarray, classes: Sequence[str], style: SeriesStyle
) -> Any:
    """Draw at most 24 mistakes, those with the highest mean loss over the seeds first.

    `images`: uint8 (N, height, width, channels); `labels`: int64 (N,); `outputs`: (S, N, K).
    """
    losses = np.mean([metrics.losses(of_seed, labels) for of_seed in outputs], axis=0)
    wrong = np.mean([metrics.predicted_labels(of_seed) != labels for of_seed in outputs], axis=0)
    worst = np.argsort(-losses)[:24]
    worst = worst[wrong[worst] > 0]
    probabilities = np.mean([np.exp(metrics.log_probabilities(of_seed[worst])) for of_seed in outputs], axis=0)
    height, width, channels = images.shape[1:]
    columns, rows = 8, max(1, -(-len(worst) // 8))
    lines = 2 if max(map(len, classes)) > 4 else 1
    across, down = round(1.25 * width), round((1.3 + 0.2 * lines) * height)
    sheet = np.full((rows * down, columns * across, channels), 0 if channels == 1 else 255, np.uint8)
    figure, axis = subplots(figsize=(9.6, (1.3 + 0.2 * lines) * rows + 0.5))
    axis.axis("off")
    for place, (example, p) in enumerate(zip(worst, probabilities, strict=True)):
        top, left = (place // columns) * down + (down - height), (place % columns) * across + (across - width) // 2
        sheet[top : top + height, left : left + width] = images[example]
        likeliest = int(p.argmax())
        actual = left_to_right(short(classes[labels[example]], 15))
        predicted = left_to_right(short(classes[likeliest], 9))
        title = f"{actual}{' ' if lines == 1 else chr(10)}\u2192 {predicted}  {p[likeliest]:.0%}"
        axis.text(
            left + width / 2, top - 0.06 * height, title, ha="center", va="bottom", fontsize=8.5, parse_math=False
        )
    axis.imshow(sheet.squeeze(), cmap="gray_r" if channels == 1 else None, vmin=0, vmax=255, aspect="equal")
    seeds = f", mean over {len(outputs)} seeds" if len(outputs) > 1 else ""
    title = f"{style.title}: the worst mistakes, actual \u2192 predicted and its probability{seeds}"
    axis.set_title(title if len(worst) else f"{style.title}: no mistakes", fontsize=11)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.93)
    return figure
