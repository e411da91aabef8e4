"""Fonts for names in any script: those of this machine that have what the figures' own font lacks."""

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import font_manager, ft2font
from PIL import ImageFont

OWN: Final = "DejaVu Sans"
"""The font of the figures, which comes with matplotlib."""
_UNFIT: Final = ("Last Resort", "DejaVu", "STIX", "cm")  # boxes, and what comes with matplotlib
_MOST_SAID: Final = 20
_said: set[str] = set()  # signs that no font has, of which this process has told


def families(texts: Iterable[Any]) -> list[str]:
    """Return the families for these texts: the figures' own font, then as few others as have what it lacks.

    Prints one line if no font of this machine has a sign; a box then stands for it.
    """
    return [OWN, *dict.fromkeys(entry.name for entry in _fallbacks(_lacking(texts)))]


def font_for(line: str, size: int) -> Any:
    """Load PIL's font for a line: the figures' own, or the one that has most of what this lacks."""
    lacking = _lacking([line])
    for entry in _fallbacks(lacking):
        return ImageFont.truetype(entry.fname, size, index=entry.index)
    return ImageFont.truetype(str(_own_path()), size)


def left_to_right(name: str) -> str:
    """Enclose a name that is written from right to left in marks that keep what is around it from turning, too."""
    turned = any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in name)
    return f"\u2067{name}\u2069\u200e" if turned else name


def _own_path() -> Path:
    return Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def _lacking(texts: Iterable[Any]) -> frozenset[str]:
    """Return the signs of all texts, also of nested lists and mappings, that the figures' own font lacks."""
    signs: set[str] = set()
    for text in texts:
        if isinstance(text, str):
            signs |= set(text)
        elif isinstance(text, Mapping):
            signs |= _lacking([*text.keys(), *text.values()])
        elif isinstance(text, list | tuple):
            signs |= _lacking(text)
    seen = {sign for sign in signs if not sign.isascii() and unicodedata.category(sign)[0] not in "CZ"}
    return frozenset(seen - _signs(str(_own_path()), 0)) if seen else frozenset()


@cache
def _fallbacks(lacking: frozenset[str]) -> tuple[font_manager.FontEntry, ...]:
    """Return fonts that together have these signs, each time the one that has most of the rest."""
    chosen: list[font_manager.FontEntry] = []
    candidates = _candidates() if lacking else []
    while lacking and candidates:
        best = max(candidates, key=lambda entry: len(lacking & _signs(entry.fname, entry.index)))  # the first of equals
        if not lacking & _signs(best.fname, best.index):
            break
        chosen.append(best)
        lacking -= _signs(best.fname, best.index)
    if new := sorted(lacking - _said):
        _said.update(new)
        more = f" and {len(new) - _MOST_SAID:,} more" if len(new) > _MOST_SAID else ""
        print(
            f"figures: no font of this machine has {' '.join(new[:_MOST_SAID])}{more}: boxes stand for them; install "
            "one, such as Debian's fonts-noto-cjk or fonts-noto-core"
        )
    return tuple(chosen)


@cache
def _candidates() -> list[font_manager.FontEntry]:
    """Return the upright fonts of usual weight of this machine, plain ones first; each time in the same order."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(font_manager.findSystemFonts()):
        if path not in known:  # installed since matplotlib listed the fonts
            try:
                font_manager.fontManager.addfont(path)
            except (OSError, RuntimeError):  # not a font that FreeType reads
                continue
    entries = [
        entry
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal" and entry.weight == 400 and not entry.name.startswith(_UNFIT)
    ]

    def rank(entry: font_manager.FontEntry) -> tuple[bool, bool, bool, str, str]:
        plain = "Sans" in entry.name
        return not plain, "Mono" in entry.name, not entry.name.endswith(" SC"), entry.name, entry.fname

    return sorted(entries, key=rank)


@cache
def _signs(path: str, index: int) -> frozenset[str]:
    """Return the signs that a face of a font file has; none if it cannot be drawn at any size."""
    try:
        face = ft2font.FT2Font(path, face_index=index)
    except (OSError, RuntimeError):
        return frozenset()
    if ft2font.FaceFlags.SCALABLE not in face.face_flags:
        return frozenset()
    return frozenset(map(chr, face.get_charmap()))
