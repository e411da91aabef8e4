"""Names in scripts that the figures' own font lacks."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from pipeline.core.frameworks import find
from pipeline.reports.figures import fonts
from pipeline.reports.figures.data import Row, class_counts, sheet
from pipeline.reports.figures.evaluation import confusion, mistakes
from pipeline.reports.figures.style import save

SIGN = "\U00017000"
"""Tangut, of which no font is usual."""
NAMES = (f"x {SIGN}", "plain")


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of fonts but the usual ones, before and after."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    monkeypatch.setattr(fonts, "_said", set())
    for function in (fonts._fallbacks, fonts._candidates):
        function.cache_clear()
    yield
    for function in (fonts._fallbacks, fonts._candidates):
        function.cache_clear()


def install(folder: Path) -> str:
    """Make a font that has the sign, a black square, and install it."""
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(SIGN): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(folder / "squares.ttf")
    font_manager.fontManager.addfont(folder / "squares.ttf")
    return "Squares Sans"


def test_usual_names_take_the_usual_font(capsys: pytest.CaptureFixture[str]) -> None:
    assert fonts.families([["cat", "Ä", "кот", "قطة", "a\n\tb"], {"x": ("y", 1, None)}]) == [fonts.OWN]
    assert not capsys.readouterr().out


def test_a_font_that_has_the_sign_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = install(tmp_path)
    assert fonts.families([NAMES]) == [fonts.OWN, family]
    style, counts = find("pytorch").style, {"train": (1, 2), "validation": (1, 2), "test": (1, 2)}
    images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1])
    figures = (
        class_counts(counts, NAMES),
        confusion(np.eye(2, dtype=int), NAMES, style),
        mistakes(images, labels, np.array([[[0.0, 1.0]] * 4]), NAMES, style),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a missing sign; `save` would hide that
        for figure in figures:
            figure.canvas.draw()
            figure.savefig(tmp_path / "figure.svg")
    assert not capsys.readouterr().out


def test_a_sign_that_no_font_has_is_said_once_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    for _ in range(2):
        save(class_counts({"train": (1, 2), "test": (1, 2), "validation": (1, 1)}, NAMES), tmp_path / "figure.png")
    captured = capsys.readouterr()
    assert captured.out == (
        f"figures: no font of this machine has {SIGN}: boxes stand for them; install one, such as Debian's "
        "fonts-noto-cjk or fonts-noto-core\n"
    )
    assert not captured.err
    assert not recwarn.list


def test_the_sheet_of_samples_takes_it_too(tmp_path: Path) -> None:
    rows = [Row(0, SIGN * 3, 1, None, {})]
    boxes = np.asarray(sheet(rows, (80, 80)))
    fonts._fallbacks.cache_clear()
    fonts._candidates.cache_clear()
    install(tmp_path)
    squares = np.asarray(sheet(rows, (80, 80)))
    assert squares.sum() < boxes.sum()  # filled


def test_a_name_from_right_to_left_does_not_turn_its_line() -> None:
    assert fonts.left_to_right("cat") == "cat"
    assert fonts.left_to_right("قطة") == "\u2067قطة\u2069\u200e"
