"""Progress of long work: a bar with rate and remaining time on a terminal, plain lines otherwise."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class PipedConsole(Console):
    """A console whose closed pipe is Python's own error, as for `print`; rich would exit with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise `BrokenPipeError`, see `core.exits`."""
        raise BrokenPipeError


console = PipedConsole(soft_wrap=True)
if not (console.is_terminal or os.environ.get("COLUMNS")):
    console.width = 200  # do not fold tables that are written to a file


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        total = "" if task.total is None else f"/{task.total:,.0f}"
        done = f"{task.completed:,.0f}{total} {self.unit}"
        return Text(f"{done}  {speed:,.0f} {self.unit}/s" if speed else done, style="cyan")


class Steps:
    """A counter of finished work: call it with the amount. `say` prints a line above the bar."""

    def __init__(
        self,
        advance: Callable[[float], None],
        skip: Callable[[float], None],
        say: Callable[[str], None],
        watched: bool,
    ) -> None:
        self._advance = advance
        self.skip = skip
        """Count work that an earlier process did: it does not enter the rate."""
        self.say = say
        self.watched = watched
        """Whether a bar is shown on a terminal, so that frequent updates are worth their cost."""

    def __call__(self, amount: float = 1) -> None:
        self._advance(amount)


@contextmanager
def steps(title: str, total: float | None, unit: str) -> Iterator[Steps]:
    """Show the progress of `total` units of work named `title`; `total` None: an unknown number."""
    if console.is_terminal:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            _Rate(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total)

            def skip(amount: float) -> None:
                progress.tasks[0].completed += amount  # `update` would count it in the rate

            yield Steps(lambda amount: progress.advance(task, amount), skip, progress.console.print, watched=True)
    else:
        began = time.monotonic()
        done = 0.0

        def advance(amount: float) -> None:
            nonlocal done
            done += amount

        yield Steps(advance, lambda _: None, lambda line: print(line, flush=True), watched=False)
        seconds = time.monotonic() - began
        of = "" if total in (None, done) else f" of {total:,.0f}"
        print(f"{title}: {done:,.0f}{of} {unit} in {seconds:.1f} s", flush=True)
