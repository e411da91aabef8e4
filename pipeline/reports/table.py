"""The table of a comparison: on the terminal, in a file, in MLflow."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison.arm import Arm
from ..comparison.result import TITLES, Comparison
from ..comparison.verdict import UNITS
from ..evaluation.summary import summarise


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the rows of the table: name, A, B, A minus B or the speed ratio with its 95 % interval, verdict."""
    lines: list[tuple[str, ...]] = []
    for metric, difference in comparison.differences.items():
        unit, (low, high) = UNITS[metric], difference.interval()
        form: Callable[[float], str] = f"{{:.{unit.decimals}f}}".format
        cells = (_spread(np.multiply(values, unit.scale), form) for values in (difference.a, difference.b))
        mean = f"{unit.signed(difference.mean)} [{unit.signed(low)}, {unit.signed(high)}]"
        lines.append((f"{TITLES[metric]}{', %' * (unit.scale == 100)}", *cells, mean, comparison.label(metric)))
    if comparison.speed:
        speeds = (comparison.speed.a, comparison.speed.b)
        titles = {
            "training": ("training images/s", "training_images_per_second", "{:,.0f}"),
            "inference": ("inference images/s", "inference_images_per_second", "{:,.0f}"),
            "latency": ("one image, ms", "latency_p50_milliseconds", "{:.2f}"),
        }
        for kind, (title, key, text) in titles.items():
            ratio = comparison.speed.ratios[kind]
            mean = f"speed \u00d7{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
            lines.append((title, *(text.format(getattr(arm, key)) for arm in speeds), mean, comparison.faster(kind)))
    seconds = [_spread(arm.epoch_seconds, "{:.2f}".format) for arm in (comparison.a, comparison.b)]
    lines.append(("seconds per epoch", seconds[0], seconds[1], "", ""))
    facts: dict[str, Callable[[Arm], Any]] = {
        "parameters": lambda arm: f"{arm.manifest.parameters:,}",
        "execution": lambda arm: arm.manifest.framework.execution,
        "device": lambda arm: arm.manifest.machine.device_in_words,
    }
    lines += [(title, fact(comparison.a), fact(comparison.b), "", "") for title, fact in facts.items()]
    return lines


def show(comparison: Comparison, path: Path, where: Sequence[str]) -> None:
    """Print table, verdict and the lines `where`, and write them to `path`.

    `make repro` prints that file if the stage has nothing to do.
    """
    a, b = comparison.a.title, comparison.b.title
    seeds = len(comparison.a.seeds)
    title = f"{seeds} seeds: mean \u00b1 standard deviation [95 % interval]" if seeds > 1 else "one seed"
    text = [comparison.sentence("accuracy"), *comparison.notes, *where]
    _print(title, ("", a, b, f"{a} \u2212 {b}", "verdict"), rows(comparison), text, path)


def show_all(comparisons: Mapping[str, Comparison], reports: str) -> None:
    """Print one row per comparison, by label; `reports`: where their pages are."""
    pairs = {(comparison.a.title, comparison.b.title) for comparison in comparisons.values()}
    a, b = next(iter(pairs)) if len(pairs) == 1 else ("reference", "other")
    lines = [
        (label, str(len(comparison.a.seeds)), *rows(comparison)[0][1:]) for label, comparison in comparisons.items()
    ]
    head = ("configuration", "seeds", a, b, f"{a} \u2212 {b}, points", "verdict on test accuracy")
    notes = dict.fromkeys(note for comparison in comparisons.values() for note in comparison.notes)
    text = [*notes, f"Reports: {reports}"]
    _print("mean \u00b1 standard deviation [95 % interval]", head, lines, text)


def _print(
    title: str, head: Sequence[str], lines: Sequence[Sequence[str]], text: Sequence[str], path: Path | None = None
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(head):
        table.add_column(column, justify="left" if number in (0, len(head) - 1) else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    targets = [Console(soft_wrap=True) if Console().is_terminal else Console(width=110)]
    with path.open("w", encoding="utf-8") if path else nullcontext() as file:
        if file:
            targets.append(Console(file=file, width=110))
        for target in targets:
            target.print(table)
            for paragraph in text:
                target.print(paragraph, highlight=False, markup=False, soft_wrap=True)


def markdown(comparison: Comparison) -> str:
    """Format verdict, table and notes as Markdown."""
    a, b = comparison.a.title, comparison.b.title
    lines = [
        f"**{comparison.sentence('accuracy')}**",
        "",
        f"| | {a} | {b} | {a} \u2212 {b} | verdict |",
        "|--|--|--|--|--|",
    ]
    lines += [f"| {' | '.join(cells)} |" for cells in rows(comparison)]
    return "\n".join([*lines, "", *comparison.notes])


def _spread(values: Any, form: Callable[[float], str]) -> str:
    """Format mean and standard deviation; for one value the value alone."""
    summary = summarise(values)
    return form(summary.mean) if summary.n == 1 else f"{form(summary.mean)} \u00b1 {form(summary.std)}"
