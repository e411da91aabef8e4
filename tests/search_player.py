"""Trials of a search without training, in processes that import nothing else."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from pipeline.search.record import SearchRecord
from pipeline.search.study import Study, Trial


def play(folder: Path, record: SearchRecord, number: int) -> None:
    """Draw a point, report an epoch, and end the trial."""
    each = Study(folder, record, number)
    each.draw(number)
    each.report(number, 1, 0.5)
    each.note(number, "pytorch", epochs=3, scores=(0.5, 1.0))
    each.end(number, 0.5)


def play_together(folder: Path, record: SearchRecord) -> list[Trial]:
    """Play all trials of a search in three processes at once, and return them."""
    Study(folder, record).prepare()
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(play, folder, record, number) for number in range(record.settings.trials)]:
            done.result()
    return Study(folder, record).trials()
