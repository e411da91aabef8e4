"""How good one side's predictions are: where it is wrong, how sure it was, and on which images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.frameworks import SeriesStyle
from ...data.array_file import ArrayFile
from ...evaluation import metrics
from .style import GREY, short, styled, subplots

_MOST_CLASSES = 25  # beyond, numbers and names no longer fit


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], look: SeriesStyle) -> Any:
    """Counts by actual (row) and predicted class; the colour shows the mistakes, which the diagonal would drown."""
    figure, axis = subplots(figsize=(6.2, 5.4), layout="constrained")
    image = draw_confusion(axis, matrix, classes)
    axis.set_title(f"{look.title}: {np.trace(matrix) / matrix.sum():.2%} right")
    figure.colorbar(image, ax=axis, label="mistakes", shrink=0.8)
    return figure


def draw_confusion(axis: Any, matrix: np.ndarray, classes: Sequence[str], most: int | None = None) -> Any:
    """Into `axis`; the colour scale ends at `most` mistakes (default: those of the worst cell)."""
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
def reliability(outputs: np.ndarray, labels: np.ndarray, bins: int, look: SeriesStyle) -> Any:
    """Accuracy by confidence in equal-width bins, above the count of predictions in each (log scale)."""
    figure, (top, bottom) = subplots(2, 1, figsize=(5.2, 5.4), sharex=True, height_ratios=(3, 1), layout="constrained")
    error = metrics.score(outputs, labels, bins).calibration_error
    draw_reliability(top, bottom, {look: (outputs, labels)}, bins)
    top.set_title(f"{look.title}: calibration error {error:.4f}")
    return figure


def draw_reliability(
    top: Any, bottom: Any, sides: "dict[SeriesStyle, tuple[np.ndarray, np.ndarray]]", bins: int
) -> None:
    """Into two axes; the bars of several sides stand beside each other."""
    edges = np.linspace(0, 1, bins + 1)
    centres, width = (edges[:-1] + edges[1:]) / 2, 0.92 / bins / len(sides)
    top.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="calibrated")
    for position, (look, (outputs, labels)) in enumerate(sides.items()):
        correct = metrics.predicted_labels(outputs) == labels
        index = np.minimum((metrics.confidence(outputs) * bins).astype(int), bins - 1)
        counts = np.bincount(index, minlength=bins)
        accuracy = np.bincount(index, correct, bins) / np.maximum(counts, 1)
        seen = counts > 0
        at = centres + (position - (len(sides) - 1) / 2) * width
        top.bar(at[seen], accuracy[seen], width, color=look.colour, alpha=0.85, label=look.title)
        bottom.bar(at, counts, width, color=look.colour, alpha=0.5)
    top.set(ylabel="accuracy", ylim=(0, 1.02))
    top.legend(loc="upper left")
    bottom.set(xlabel="confidence", ylabel="predictions", yscale="log", xlim=(0, 1))


@styled
def per_class(matrix: np.ndarray, classes: Sequence[str], look: SeriesStyle) -> Any:
    """Precision and recall of each class, worst F1 first; the axis starts where the numbers do."""
    values = metrics.per_class(matrix)
    order = np.argsort(values["f1"])[: 2 * _MOST_CLASSES]
    figure, axis = subplots(figsize=(6.2, max(2.6, 0.34 * len(order) + 1)), layout="constrained")
    at = np.arange(len(order))
    for name, offset, alpha in (("recall", -0.2, 0.95), ("precision", 0.2, 0.45)):
        shown = values[name][order]
        axis.barh(at + offset, shown, 0.38, color=look.colour, alpha=alpha, label=name)
        for y, value in zip(at + offset, shown, strict=True):
            axis.text(value, y, f" {100 * value:.1f}", va="center", fontsize=8, color="#333a45")
    low = min(values["recall"][order].min(), values["precision"][order].min())
    low = max(0.0, np.floor((low - 0.02) * 20) / 20)
    axis.set_yticks(at, [classes[i] for i in order], parse_math=False)
    axis.set(xlim=(low, 1 + 0.06 * (1 - low)), ylabel="class")
    axis.set_title(f"{look.title}: recall and precision by class, %")
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def mistakes(
    images: np.ndarray | ArrayFile, labels: np.ndarray, outputs: np.ndarray, classes: Sequence[str], look: SeriesStyle
) -> Any:
    """The images with the highest loss, of several seeds: the mean over them; outputs (S, N, K)."""
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
        said = int(p.argmax())
        actual, predicted = short(classes[labels[example]], 15), short(classes[said], 9)
        title = f"{actual}{' ' if lines == 1 else chr(10)}\u2192 {predicted}  {p[said]:.0%}"
        axis.text(
            left + width / 2, top - 0.06 * height, title, ha="center", va="bottom", fontsize=8.5, parse_math=False
        )
    axis.imshow(sheet.squeeze(), cmap="gray_r" if channels == 1 else None, vmin=0, vmax=255, aspect="equal")
    seeds = f", mean over {len(outputs)} seeds" if len(outputs) > 1 else ""
    title = f"{look.title}: the worst mistakes, actual \u2192 predicted and its probability{seeds}"
    axis.set_title(title if len(worst) else f"{look.title}: no mistakes", fontsize=11)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.93)
    return figure
