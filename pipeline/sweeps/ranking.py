"""The ranking of a sweep, on the terminal, in `ranking.md` and in MLflow: points, best first, and failed jobs."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from ..config.labels import brief, short_keys
from ..config.schema.sweep import SweepConfig
from ..core.errors import ResultError
from ..core.files import write_text
from ..core.frameworks import FRAMEWORKS
from ..core.progress import console
from ..tracking.runs import DESCRIPTION_LENGTH
from .plan import SweepJob
from .points import DIGITS, FALLING, FinishedJob, Point, Ranked, rank
from .processes import Failure

FILE: Final = "ranking.md"
_NUMBERS: Final = {name: name.removeprefix("train_").replace("_per_second", "/s").replace("_", " ") for name in FALLING}
"""Titles of the columns with scores."""


@dataclass(frozen=True)
class Ranking:
    """The finished and failed jobs of the sweep in `folder`."""

    folder: Path
    name: str
    """The name of the sweep."""
    config: SweepConfig
    """What the ranking goes by, and how much of it is shown."""
    finished: Sequence[FinishedJob]
    failures: Sequence[tuple[SweepJob, str]] = ()
    """Jobs without results, with the reason."""

    @classmethod
    def read(cls, folder: Path, name: str, jobs: Iterable[tuple[SweepJob, Path]]) -> "Ranking":
        """Read the results of at least one job, each with its folder. A job whose files are unreadable has failed."""
        finished, failures = list[FinishedJob](), list[tuple[SweepJob, str]]()
        for job, place in jobs:
            try:
                if (place / "summary.json").exists():
                    finished.append(FinishedJob.read(job, place))
                else:
                    failures.append((job, Failure.read(place).reason))
            except ResultError as error:
                failures.append((job, str(error)))
        config = (finished[0].job if finished else failures[0][0]).config.sweep
        return cls(folder, name, config, finished, failures)

    @cached_property
    def ranked(self) -> list[Ranked]:
        """The points in order, see `points.rank`."""
        return rank(self.finished, self.config.sort)

    @property
    def best(self) -> dict[str, float]:
        """The scores of the first point, as metrics of the sweep's run; empty if no job is done."""
        scores = self.ranked[0].point.scores if self.finished else {}
        return {f"best/{name}": summary.mean for name, summary in scores.items() if math.isfinite(summary.mean)}

    @property
    def title(self) -> str:
        """The name of the sweep, how many jobs it has, and what the ranking goes by."""
        direction = "highest" if FALLING[self.config.sort] else "lowest"
        counts = f"{len(self.finished)} done, {len(self.failures)} failed"
        return f"{self.name}: {counts}; by {_NUMBERS[self.config.sort]}, {direction} first"

    def write(self) -> None:
        """Write all of it to `ranking.md` in the sweep's folder."""
        write_text(self.folder / FILE, self.markdown())

    def markdown(self) -> str:
        """Return all points and all failures as a Markdown table."""
        lines = [self.title, "", *self._head(), *self._rows(), *self._failed()]
        return "\n".join(lines) + "\n"

    def description(self) -> str:
        """Return the best points as a Markdown table that MLflow does not cut."""
        head, rows = self._head(), list(self._rows())
        shown = rows[: self.config.top]
        while shown and sum(len(line) + 1 for line in (*head, *shown, self.title)) > DESCRIPTION_LENGTH - 200:
            shown.pop()
        part = f" The best {len(shown)} of {len(rows)} are shown." if len(shown) < len(rows) else ""
        # the UI shows the first lines until one asks for more: the title, which is the page's, comes last
        return "\n".join([*head, *shown, "", f"{self.title}.{part} All, and why jobs failed: artifact `{FILE}`."])

    def show(self) -> None:
        """Print the table, the failures, the folder, and the command that compares the frameworks."""
        ranked, top = self.ranked, self.config.top
        console.print(self._table(ranked[:top]))
        if len(ranked) > top:
            console.print(f"the best {top} of {len(ranked)}; all: {self.folder / FILE}", highlight=False, markup=False)
        if self.failures:
            console.print("Run the same command again to train only the failed jobs.", highlight=False)
        short = short_keys(self._varied)
        for job, reason in self.failures[:top]:
            changed = " ".join(f"{short[key]}={brief(value)}" for key, value in job.varied.items())
            said = f"job {job.number}: {f'{job.config.framework} {changed}'.strip()}: {reason}"
            console.print("[red]failed[/]: ", end="")
            console.print(said, markup=False)
        if len(self.failures) > top:
            more = f"{len(self.failures) - top} more failed: {self.folder / FILE}"
            console.print(more, highlight=False, markup=False)
        console.print(f"files of each job: {self.folder}/<job>/", highlight=False, markup=False)
        trained = {done.job.config.framework for done in self.finished}
        if len(trained) > 1:
            titles = " against ".join(FRAMEWORKS[name].style.title for name in FRAMEWORKS if name in trained)
            console.print(f"{titles}: python -m pipeline.compare sweep={self.name}", highlight=False, markup=False)

    def _table(self, ranked: Sequence[Ranked]) -> object:
        from rich.table import Table
        from rich.text import Text

        seeds = any(each.point.seeds > 1 for each in ranked)
        table = Table(title=Text(self.title), title_justify="left")
        for column in ("rank", "job", "framework", *short_keys(self._varied).values()):
            table.add_column(Text(column), overflow="fold")
        for column in (*["seeds"] * seeds, *_NUMBERS.values()):
            table.add_column(column, justify="right", overflow="fold")
        for each in ranked:
            values = [brief(value) for value in self._values(each.point.jobs[0])]
            numbers = (*[str(each.point.seeds)] * seeds, *_cells(each.point))
            cells = [each.rank, _jobs(each.point), each.point.jobs[0].config.framework, *values, *numbers]
            table.add_row(*map(Text, cells))
        return table

    def _head(self) -> list[str]:
        keys = list(short_keys(self._varied).values())
        head = ["rank", "job", "framework", *keys, "seeds", *_NUMBERS.values()]
        return [_row(head), _row(["---"] * len(head))]

    def _rows(self) -> Iterator[str]:
        for each in self.ranked:
            job = each.point.jobs[0]
            numbers = str(each.point.seeds), *_cells(each.point)
            yield _row([each.rank, _jobs(each.point), job.config.framework, *self._values(job), *numbers])

    def _failed(self) -> Iterator[str]:
        for job, reason in self.failures:
            yield _row(["failed", str(job.number), job.config.framework, *self._values(job), "", reason, "", ""])

    @cached_property
    def _varied(self) -> list[str]:
        jobs = sorted([*(done.job for done in self.finished), *(job for job, _ in self.failures)], key=_number)
        return list(dict.fromkeys(key for job in jobs for key in job.varied))

    def _values(self, job: SweepJob) -> list[str]:
        return [job.varied.get(key, "") for key in self._varied]


def _number(job: SweepJob) -> int:
    return job.number


def _cells(point: Point) -> list[str]:
    """Return the scores of a point: mean, and standard deviation where there are several seeds; speed as a mean."""
    cells = []
    for name, digits in DIGITS.items():
        score = point.scores[name]
        spread = f" ± {score.std:.{digits}f}" if score.n > 1 and name != "train_images_per_second" else ""
        cells.append(f"{score.mean:,.{digits}f}{spread}")
    return cells


def _jobs(point: Point) -> str:
    """Return the numbers of a point's jobs, consecutive ones as `0-49`."""
    runs: list[list[int]] = []
    for job in point.jobs:
        if runs and job.number == runs[-1][-1] + 1:
            runs[-1].append(job.number)
        else:
            runs.append([job.number])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
