"""The table of a search on the terminal, and as Markdown for MLflow."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.frameworks import find
from ...core.progress import console
from ...search.record import SearchRecord
from ...search.study import Trial, ranks, short
from ..processes import Failure


def show(record: SearchRecord, trials: Sequence[Trial], failures: Mapping[Path, Failure]) -> None:
    """Print the best trials, points that are no configuration, and every job that failed, by its folder."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{record.name}: {counts_of(trials)}", title_justify="left")
    header, rows = _content(record, trials)
    for column in header:
        table.add_column(column, overflow="fold", justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for trial in trials:
        if trial.state == "failed":
            console.print(f"trial {trial.number} is no configuration: {escape(trial.reason)}", highlight=False)
    for path, failure in failures.items():
        console.print(f"[red]failed[/]: {path}: {escape(failure.reason)}", highlight=False)
    if failures:
        console.print("Run the same command again to train only what failed.", highlight=False)
    elif not rows:
        console.print("No trial is complete: widen the space, or give search.trials more.", highlight=False)


def markdown(record: SearchRecord, trials: Sequence[Trial], sentence: str) -> str:
    """Return the answer and the table as Markdown."""
    header, rows = _content(record, trials)
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{sentence}\n\n{counts_of(trials)}\n\n{table}".strip()


def counts_of(trials: Sequence[Trial]) -> str:
    """Return the number of trials by state, in words."""
    counts: Counter[str] = Counter(trial.state for trial in trials)
    states = ("complete", "pruned", "failed", "running", "waiting")
    return f"{len(trials)} trials: {', '.join(f'{counts[state]} {state}' for state in states if counts[state])}"


def _content(record: SearchRecord, trials: Sequence[Trial]) -> tuple[list[str], list[list[str]]]:
    names, keys = record.space.frameworks, [each.key for each in record.space.dimensions]
    several = len(names) > 1
    titles = [find(name).style.title for name in names] + ["mean"] * several
    parts = [key.rpartition(".")[2] for key in keys]
    columns = [part if parts.count(part) == 1 else key for part, key in zip(parts, keys, strict=True)]
    rows = []
    for rank, trial in ranks(trials)[: record.settings.top]:
        values = [short(trial.point[key]) for key in keys]
        scores = [trial.accuracy[name] for name in names] + [trial.value or 0.0] * several
        rows.append([rank, str(trial.number), *values, *(f"{score:.4f}" for score in scores)])
    return ["rank", "trial", *columns, *titles], rows
