"""A trial of a search without training, in a process that imports nothing else."""

from pathlib import Path

from pipeline.search.record import SearchRecord
from pipeline.search.study import Study


def play(folder: Path, record: SearchRecord, number: int) -> None:
    """Draw a point, report an epoch, and end the trial."""
    each = Study(folder, record, number)
    each.draw(number)
    each.report(number, 1, 0.5)
    each.note(number, "pytorch", epochs=3, scores=(0.5, 1.0))
    each.end(number, 0.5)
