"""The table of a comparison: on the terminal, in a file, in MLflow."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..comparison.arm import Arm
from ..comparison.result import TITLES, Comparison
from ..comparison.verdict import UNITS
from ..core.files import write_text
from ..core.progress import PipedConsole, console
from ..evaluation.speed_result import ArmSpeed
from ..evaluation.summary import summarise

_WIDTH: Final = 110  # characters, where no terminal says another


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the rows of the table: name, A, B, A minus B or the speed ratio with its 95 % interval, verdict."""
    lines: list[tuple[str, ...]] = []
    for metric, difference in comparison.differences.items():
        unit = UNITS[metric]
        low, high = unit.ends(difference.interval())
        form: Callable[[float], str] = f"{{:.{unit.decimals}f}}".format
        cells = (_spread(np.multiply(values, unit.scale), form) for values in (difference.a, difference.b))
        mean = f"{unit.signed(difference.mean)} [{low}, {high}]"
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
            mean = f"speed \u00d7{ratio.mean:.2f} [{', '.join(ratio.ends)}]"
            lines.append((title, *(text.format(getattr(arm, key)) for arm in speeds), mean, comparison.faster(kind)))
            lines += _scaling(speeds) if kind == "training" else []
    seconds = [_spread(arm.epoch_seconds, "{:.2f}".format) for arm in (comparison.a, comparison.b)]
    lines.append(("seconds per epoch", seconds[0], seconds[1], "", ""))
    facts: dict[str, Callable[[Arm], Any]] = {
        "parameters": lambda arm: f"{arm.manifest.parameters:,}",
        "execution": lambda arm: arm.manifest.framework.execution,
        "device": lambda arm: arm.manifest.device_in_words,
    }
    lines += [(title, fact(comparison.a), fact(comparison.b), "", "") for title, fact in facts.items()]
    return lines


def _scaling(speeds: Sequence[ArmSpeed]) -> list[tuple[str, ...]]:
    """Return the rows of trainings by several ranks; none for those of one process."""
    efficiencies = [arm.efficiency for arm in speeds]
    if None in efficiencies:
        return []
    each = [f"{arm.training_images_per_second / arm.world:,.0f}" for arm in speeds]
    shown = [f"{ratio.mean:.2f} [{', '.join(ratio.ends)}]" for ratio in efficiencies if ratio]
    world = speeds[0].world
    alone = [f"{arm.alone_images_per_second:,.0f}" for arm in speeds]
    return [
        (f"of each of {world} ranks", *each, "", ""),
        ("of one process", *alone, "", ""),
        ("scaling efficiency", *shown, "", ""),
    ]


def show(comparison: Comparison, path: Path, where: Sequence[str]) -> None:
    """Print table, verdict and the lines `where`, and write them to `path`.

    `make repro` prints that file if the stage has nothing to do.
    """
    a, b = comparison.a.title, comparison.b.title
    seeds = len(comparison.a.seeds)
    title = f"{seeds} seeds: mean \u00b1 standard deviation [95 % interval]" if seeds > 1 else "one seed"
    if comparison.speed:
        title += f"; speed: {comparison.speed.restarts} restarts"
    text = [comparison.sentence("accuracy"), comparison.compared, *comparison.notes, *where]
    _print(title, ("", a, b, f"{a} \u2212 {b}", "verdict"), rows(comparison), text, path)


def show_all(comparisons: Mapping[str, Comparison], reports: str) -> None:
    """Print one row per comparison, by label; `reports`: where their pages are."""
    titles = [{comparison.a.title for comparison in comparisons.values()}]
    titles.append({comparison.b.title for comparison in comparisons.values()})
    a, b = (next(iter(names)) if len(names) == 1 else other for names, other in zip(titles, ("A", "B"), strict=True))
    lines = [
        (label, str(len(comparison.a.seeds)), *rows(comparison)[0][1:]) for label, comparison in comparisons.items()
    ]
    head = ("configuration", "seeds", a, b, f"{a} \u2212 {b}, points", "verdict on test accuracy")
    notes = _notes(comparisons)
    compared = dict.fromkeys(comparison.compared for comparison in comparisons.values())
    text = [*compared, *notes, f"Reports: {reports}"]
    _print("mean \u00b1 standard deviation [95 % interval]", head, lines, text)


def _notes(comparisons: Mapping[str, Comparison]) -> list[str]:
    """Return the notes that hold for all comparisons, and then the others with the configurations they are of."""
    of: dict[str, list[str]] = {}
    for label, comparison in comparisons.items():
        for note in comparison.notes:
            of.setdefault(note, []).append(label)
    lines = [note for note, labels in of.items() if len(labels) == len(comparisons)]
    for note, labels in of.items():
        more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
        if len(labels) < len(comparisons):
            lines.append(f"{'; '.join(labels[:3])}{more}: {note}")
    return lines


def _print(
    title: str, head: Sequence[str], lines: Sequence[Sequence[str]], text: Sequence[str], path: Path | None = None
) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(head):
        table.add_column(column, justify="left" if number in (0, len(head) - 1) else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    here = PipedConsole(soft_wrap=True) if console.is_terminal else PipedConsole(width=_WIDTH)
    if path:  # before it is printed: nobody may read to the end
        kept = io.StringIO()
        _show(PipedConsole(file=kept, width=_WIDTH), table, text)
        write_text(path, kept.getvalue())
    _show(here, table, text)


def _show(target: PipedConsole, table: Table, text: Sequence[str]) -> None:
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
    speed = [f"Speed: interval over {comparison.speed.restarts} restarts of the processes."] if comparison.speed else []
    return "\n".join([*lines, "", comparison.compared, *speed, *comparison.notes])


def _spread(values: Any, form: Callable[[float], str]) -> str:
    """Format mean and standard deviation; for one value the value alone."""
    summary = summarise(values)
    return form(summary.mean) if summary.n == 1 else f"{form(summary.mean)} \u00b1 {form(summary.std)}"
