"""The table of exported files, for the terminal."""

from collections.abc import Sequence
from typing import Final

from .result import ExportedFile, ExportResult

_HEAD: Final = ("", "MB", "largest difference", "predictions changed", "one image, ms", "images/s", "")


def rows_of(result: ExportResult) -> list[tuple[str, ...]]:
    """Return a row for each format: title, size, difference, changed predictions, times on one thread, file."""
    return [
        (
            file.title,
            f"{file.bytes / 1e6:.1f}" if file.bytes else "",
            _difference(file),
            f"{file.changed:,} of {file.examples:,}",
            f"{file.timing.one_image_milliseconds:.3f}",
            f"{file.timing.images_per_second:,.0f}",
            file.file,
        )
        for file in result.files
    ]


def _difference(file: ExportedFile) -> str:
    if file.allowed is not None:
        return f"{file.difference:.1e} (allowed {file.allowed:.1e})"
    return f"{file.difference:.1e}, equivalent, p = {file.p_equivalence:.2g}"


def table_of(results: Sequence[ExportResult]) -> str:
    """Return the lines for networks of several frameworks; speeds are those of one thread."""
    lines: list[tuple[str, ...]] = [_HEAD]
    for result in results:
        lines += rows_of(result)
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(text)
