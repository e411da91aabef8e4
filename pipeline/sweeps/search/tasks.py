"""What is open in a search, and how any process does it: it needs the folder of the search and a path in it."""

from pathlib import Path

from ...search.record import SearchRecord
from ...search.study import Study
from ..pool import Train
from ..processes import run_job
from .chosen import choose, open_jobs, run_chosen
from .trial import run_trial


def open_tasks(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Return the open trials; if there are none, the chosen points that are to be trained again.

    Each is its path in the folder of the search, and what Hydra composes for it: the keys that all trials share.
    """
    record = SearchRecord.read(folder)
    trials, shared = Study(folder, record).trials(), (*record.space.fixed, "hydra.output_subdir=null")
    if numbers := [trial.number for trial in trials if not trial.finished]:
        return [(str(number), shared) for number in numbers]
    chosen = choose(record, trials)
    return [(str(path), shared) for path in open_jobs(folder, record, chosen)] if chosen else []


def run_task(folder: Path, path: str, train: Train = run_job) -> None:
    """Do one task, unless it is done. Raises `KeyboardInterrupt` if it was interrupted."""
    if path.isdigit():
        run_trial(folder, int(path), train)
    else:
        run_chosen(folder, Path(path), train)
