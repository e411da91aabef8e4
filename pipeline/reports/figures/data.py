"""Figures of a data set: sample images of its classes, class counts, pixel values."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from .fonts import font_for
from .style import GREY, short, styled, subplots

TILE: Final = 80
"""Longest edge of a shown image in pixels: small images are enlarged by a whole factor, large ones shrink."""
COLUMN: Final = 25
"""Classes in one column; more of them make two columns, with fewer images each."""
_ACROSS, _ACROSS_HALF = 730, 280
"""Width in pixels for the images of a class, in one column and in two."""
_MOST_IMAGES: Final = 12
_LETTERS, _LETTERS_BESIDE = 24, 32
"""Characters of a class name on one line, in the sheet and beside a bar."""
_MOST_NAMED: Final = 40
"""Classes whose names all fit beside their bars."""
_PLENTY, _RARE = "#009E73", "#E69F00"
"""Of the palette of Okabe & Ito 2008, which colour-blind people tell apart."""
_CHANNELS: Final = {1: ["#333a45"], 3: ["#c0392b", "#1e8449", "#2f5fb3"]}
_INK, _SOFT = "#1d2330", "#5b6270"
_APART, _GAP, _LINE = 14, 4, 15
"""Pixels around a name, between images, and from line to line."""


@dataclass(frozen=True)
class Row:
    """A class with a few of its images, as `thumbnail` returns them."""

    label: int
    name: str
    count: int
    """Number of training images of the class."""
    mean: Image.Image | None
    """Mean of all training images of the class; None if there are none."""
    examples: Mapping[int, Image.Image]
    """Images by their position in the training split."""


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Return the width and height in pixels at which an image of that height and width is shown."""
    longer = max(height, width)
    if longer <= TILE:
        return width * (TILE // longer), height * (TILE // longer)
    return max(1, round(width * TILE / longer)), max(1, round(height * TILE / longer))


def images_in_a_row(height: int, width: int, classes: int) -> int:
    """Return how many images of each class fit into a row, at most 12."""
    across = _ACROSS if classes <= COLUMN else _ACROSS_HALF
    return min(_MOST_IMAGES, across // (tile_size(height, width)[0] + _GAP))


def thumbnail(image: np.ndarray) -> Image.Image:
    """Convert uint8 (height, width, channels) to a PIL image; shrink it if it is larger than `TILE`."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    if max(picture.size) <= TILE:
        return picture
    return picture.resize(tile_size(*image.shape[:2]), Image.Resampling.LANCZOS)


def sheet(rows: Sequence[Row], size: tuple[int, int]) -> Image.Image:
    """Draw a row per class: its name, its mean image, its images, each at `size` (width, height) in pixels."""
    columns = 1 if len(rows) <= COLUMN else 2
    deep = -(-len(rows) // columns)
    step, most = size[0] + _GAP, max(1, *(len(row.examples) for row in rows))
    texts = [_lines(row.name) for row in rows]
    names = 2 * _APART + max(
        round(font_for(line, 12).getlength(line)) for lines in (*texts, ["10,000"]) for line in lines
    )
    width, height = names + _APART + step * (1 + most) + _APART, max(size[1], 4 * _LINE) + 2 * _GAP
    picture = Image.new("RGB", (columns * width, deep * height + 2 * _LINE), "white")
    draw = ImageDraw.Draw(picture)
    for column in range(columns):
        left = column * width + names
        draw.text((left, 2 * _GAP), "mean", _SOFT, font_for("", 11))
        draw.text((left + step + _APART, 2 * _GAP), "training images", _SOFT, font_for("", 11))
    for place, (row, lines) in enumerate(zip(rows, texts, strict=True)):
        left, top = place % columns * width, place // columns * height + 2 * _LINE
        for number, line in enumerate([*lines, f"{row.count:,}"]):
            last = number == len(lines)
            at = left + _APART, top + number * _LINE
            draw.text(at, line, _SOFT if last else _INK, font_for(line, 11 if last else 12))
        left += names
        if row.mean:
            picture.paste(row.mean.resize(size, Image.Resampling.NEAREST), (left, top))
        for number, image in enumerate(row.examples.values(), start=1):
            at = left + _APART + number * step, top
            picture.paste(image.resize(size, Image.Resampling.NEAREST), at)
    return picture


def _lines(name: str) -> list[str]:
    """Break a name into at most three lines, at spaces and underscores if it has any."""
    lines = textwrap.wrap(name.replace("_", "_ "), _LETTERS, max_lines=3, placeholder=" \u2026")
    return [line.replace("_ ", "_") for line in lines]


@styled
def class_counts(counts: Mapping[Any, Sequence[int]], classes: Sequence[str]) -> Any:
    """Draw a bar per class and split, the largest class of the training split first; the mean is dotted.

    Classes with less than a third of the largest one's training images are amber. `counts`: images of each class, by
    split; `classes`: their names.
    """
    train = np.array(counts["train"])
    order = np.argsort(-train, kind="stable")
    named = len(order) <= _MOST_NAMED
    shown = np.arange(len(order)) if named else np.linspace(0, len(order) - 1, 24).round().astype(int)
    height = 0.25 * len(order) + 1.5 if named else 7
    figure, axes = subplots(
        1, len(counts), figsize=(10, height), sharey=True, width_ratios=(2, 1.1, 1.1), layout="constrained"
    )
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # else the dotted line would cross the numbers
    colours = np.where(3 * train < train.max(), _RARE, _PLENTY)[order]
    for axis, (split, values) in zip(axes, counts.items(), strict=True):
        sizes = np.array(values)[order]
        axis.barh(range(len(order)), sizes, 0.78 if named else 1.0, color=colours)
        for y, size in enumerate(sizes if named else ()):
            beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "bbox": ground}
            axis.annotate(f"{size:,}", (size, y), fontsize=8, color="#333a45", **beside)
        axis.axvline(sizes.mean(), color=GREY, lw=1, ls=":")
        axis.set_title(f"{split}: {sizes.sum():,}")
        axis.set(xlim=(0, 1.18 * max(1, sizes.max())), ylim=(len(order) - 0.4, -0.6))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.get_major_locator().set_params(integer=True, nbins=4)
        axis.grid(visible=False, axis="y")
    names = [short(classes[i], _LETTERS_BESIDE) for i in order[shown]]
    axes[0].set_yticks(shown, names, parse_math=False)  # a name may hold a dollar
    rare = "; amber: less than a third of the largest class in train" if _RARE in colours else ""
    figure.supxlabel(f"images; dotted: mean over the classes{rare}", fontsize=9, color=_SOFT)
    axes[0].set_ylabel("class" if named else f"{len(order):,} classes by size, some of them named")
    return figure


@styled
def pixel_values(histogram: np.ndarray) -> Any:
    """Draw how often each value from 0 to 255 occurs, a line per channel; `histogram`: (channels, 256)."""
    figure, axis = subplots(figsize=(10, 2.6), layout="constrained")
    for values, colour in zip(histogram, _CHANNELS[len(histogram)], strict=True):
        share = np.where(values > 0, 100 * values / values.sum(), np.nan)
        axis.plot(range(256), share, color=colour, lw=1.3, drawstyle="steps-mid")
    axis.set(xlabel="pixel value", ylabel="% of pixels", yscale="log", xlim=(-1, 256))
    return figure
