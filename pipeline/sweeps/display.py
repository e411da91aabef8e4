"""What a person sees of jobs that run several at a time: running, done, failed, time left.

It looks at the folders of the jobs, so it shows jobs of any launcher, also on other machines that share the folder.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Final, Self

from ..core.errors import UserError
from ..core.exits import INTERRUPTED, TERMINATED
from ..core.files import read_json
from ..core.progress import console
from . import cache
from .processes import LOG, Failure, tail

DONE: Final = "done"
_LOOK_SECONDS: Final = 0.5
"""Time between two looks at all folders, or longer: a look takes a fiftieth of the time at most."""
_SHOWN: Final = 8
"""Running jobs on the terminal at once, at most."""


Ended = Callable[[Path], str]
"""How the training in a folder ended, for the user, such as `done`; empty: it has not."""


@dataclass
class _Job:
    name: str
    folders: Sequence[Path]
    size: int
    """Of its logs before the sweep began."""
    began: float | None = None
    ended: bool = False
    task: Any = None
    """Its line on a terminal."""


class Display:
    """Shows jobs until the context ends. On a terminal a line for each running job, else a line for each ended one."""

    def __init__(self, jobs: Mapping[str, Sequence[Path]], ended: Ended | None = None) -> None:
        """`jobs`: by its name for the user, the folders of what a job trains.

        `ended`: default: `done` where there is a record of it. A job ends with its first training that ends otherwise.
        """
        self._jobs = [_Job(name, folders, _size(folders)) for name, folders in jobs.items()]
        self._ended = ended or _marked
        self._failed, self._began = 0, time.monotonic()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="display", daemon=True)
        self._progress: Any = None

    def __enter__(self) -> Self:
        if console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), TimeElapsedColumn(), BarColumn(20))
            self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
            self._progress.start()
            self._total = self._progress.add_task("[bold]sweep", total=len(self._jobs), note=self._counts())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Show what has ended, and stop."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        self._look()
        if self._progress:
            self._progress.stop()

    def _watch(self) -> None:
        pause = _LOOK_SECONDS
        while not self._stop.wait(pause):
            began = time.monotonic()
            self._look()
            pause = max(_LOOK_SECONDS, 50 * (time.monotonic() - began))

    def _look(self) -> None:
        for job in self._jobs:
            if job.ended:
                continue
            if job.began is None and _size(job.folders) != job.size:
                job.began = time.monotonic()
            ends = [self._ended(folder) for folder in job.folders]
            if early := [end for end in ends if end not in ("", DONE)]:  # a diverged trial is no failure of the search
                self._end(job, early[0])
            elif failure := next(filter(None, map(_failure, job.folders)), ""):
                self._failed += 1
                self._end(job, f"failed: {failure}")
            elif all(ends):
                self._end(job, DONE)
        if self._progress:
            self._show_running()

    def _end(self, job: _Job, how: str) -> None:
        job.ended = True
        seconds = f"{time.monotonic() - job.began:.0f} s; " if job.began is not None else ""
        line = f"{job.name}: {how} ({seconds}{self._counts()})"
        if self._progress is None:
            print(line, flush=True)
        elif how.startswith("failed"):
            self._progress.console.print(line, style="red", markup=False, highlight=False)

    def _show_running(self) -> None:
        running = [job for job in self._jobs if job.began is not None and not job.ended]
        for job in self._jobs:
            if job.task is not None and (job.ended or job not in running[:_SHOWN]):
                self._progress.remove_task(job.task)
                job.task = None
        for job in running[:_SHOWN]:
            if job.task is None:
                job.task = self._progress.add_task(job.name, total=None, note="")
            log = max((folder / LOG for folder in job.folders), key=_written)
            lines = tail(log)
            self._progress.update(job.task, note=lines[-1].replace("[", "\\[")[:100] if lines else "")
        ended = sum(job.ended for job in self._jobs)
        more = f"; {len(running)} running" if len(running) > _SHOWN else ""
        self._progress.update(self._total, completed=ended, note=self._counts() + more)

    def _counts(self) -> str:
        ended = sum(job.ended for job in self._jobs)
        failed = f", {self._failed} failed" if self._failed else ""
        counts = f"{ended - self._failed} of {len(self._jobs)} done{failed}"
        if not ended or ended == len(self._jobs):
            return counts
        left = (time.monotonic() - self._began) / ended * (len(self._jobs) - ended)
        return f"{counts}, about {_duration(left)} left"


def _marked(folder: Path) -> str:
    return DONE if cache.is_marked_done(folder) else ""


def _failure(folder: Path) -> str:
    """Return why a job failed; empty if it did not, or was interrupted."""
    path = folder / "failure.json"
    if not path.exists():
        return ""
    try:
        failure = Failure(**read_json(path, ""))
    except (UserError, TypeError):  # it was deleted just now
        return ""
    return "" if failure.code in (INTERRUPTED, TERMINATED) else failure.reason


def _size(folders: Sequence[Path]) -> int:
    """Return the size of all logs."""
    size = 0
    for folder in folders:
        with suppress(OSError):
            size += (folder / LOG).stat().st_size
    return size


def _written(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 100:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes}:{rest:02d} min"
