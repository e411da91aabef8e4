"""What a person sees while something long runs: a bar with rate and time left on a terminal, plain lines otherwise."""

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

console = Console(soft_wrap=True)
if not (console.is_terminal or os.environ.get("COLUMNS")):
    console.width = 200  # a table in a file need not fold


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
    """Counts work that is done; call it with the amount. `say` prints a line that stays."""

    def __init__(
        self,
        advance: Callable[[float], None],
        skip: Callable[[float], None],
        say: Callable[[str], None],
        watched: bool,
    ) -> None:
        self._advance = advance
        self.skip = skip
        """An amount was done before this process began: it says nothing of the speed."""
        self.say = say
        self.watched = watched
        """Whether a person watches: whether it is worth reporting more often than is needed."""

    def __call__(self, amount: float = 1) -> None:
        self._advance(amount)


@contextmanager
def steps(title: str, total: float | None, unit: str) -> Iterator[Steps]:
    """Show the progress of `total` `unit`s of work named `title`; None: nobody knows how many."""
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
                progress.tasks[0].completed += amount  # `update` would take it for work of this moment

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
