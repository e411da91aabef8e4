"""A comparison to where people look: a page, pictures, JSON, MLflow, the terminal."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from . import environment, metrics, report
from .comparison import TITLES, Comparison
from .config import TrackingConfig
from .data.dataset import Dataset
from .entry import main_root
from .figures import comparison as figures
from .figures.curves import learning_curves
from .figures.style import data_uri, save
from .side import Side
from .statistics import summarise
from .tracking import RUN_ID, Tracker, is_local, views
from .verdict import UNITS


def publish(
    found: Comparison,
    output: Path,
    dataset: Dataset | None,
    tracking: TrackingConfig,
    *,
    label: str = "",
    parent: str | None = None,
    tags: Mapping[str, Any] | None = None,
    front: bool = False,
) -> list[str]:
    """Write JSON, pictures and `report.html` into `output`, and log all as an MLflow run.

    `dataset`: for the pictures of single examples; None where it is not at hand. `label`: in the run's name, before the
    verdict. `front`: the saved view of curves and the bar of links on top of the MLflow page lead to it. Returns where
    to look, line by line.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / "comparison.json").write_text(json.dumps(found.document(), indent=2) + "\n")
    (output / "difference.json").write_text(json.dumps(_differences(found), indent=2) + "\n")
    pictures = {}
    for title, figure in _figures(found, dataset).items():
        pictures[title] = data_uri(figure)
        save(figure, output / f"{title}.png")
    (output / "report.html").write_text(report.page(found, pictures, dataset))
    tracker = Tracker(tracking, main_root())
    common = {
        "stage": "compare",
        "verdict": found.verdicts["accuracy"].kind,
        "data": found.a.manifest["settings"]["data"].get("name"),
        "data.fingerprint": found.a.manifest["settings"]["data"]["fingerprint"],
        "model": found.a.manifest["settings"]["model"]["name"],
        **environment.origin(),
    }
    name = " ".join(filter(None, ("compare", label, found.label("accuracy").split(" (")[0])))
    with tracker.run(name, parent=parent, tags=common | dict(tags or {})) as run:
        flat = {f"{what}/{key}": value for what, values in found.numbers().items() for key, value in values.items()}
        run.log_metrics(flat, step=0)
        for path in sorted(output.iterdir()):
            if path.suffix in (".html", ".json", ".png"):
                run.log_file(path)
        picture = f"![differences](get-artifact?run_uuid={RUN_ID}&path=differences.png)"
        run.describe(f"{_markdown(found)}\n\n{picture}")
        if front:
            current = [reference for side in (found.a, found.b) for reference in side.runs.values()]
            run.show(current=current, report=True)
    report_at = f"Report: {output / 'report.html'}"
    if is_local(run.reference):
        return [report_at]
    links = {"report": tracker.link(views.run_link(tracker.experiment_id, run.reference, "report.html"))}
    if front:
        links["curves"] = tracker.link(views.view_link(tracker.experiment_id, "curves", charts=True))
        links["leaderboard"] = tracker.link(views.view_link(tracker.experiment_id, "leaderboard"))
    start = [] if tracker.uri.startswith("http") else ["MLflow (`make ui` serves it):"]
    return [report_at, *start, *(f"  {name:11} {link}" for name, link in links.items())]


def _differences(found: Comparison) -> dict[str, dict[str, float]]:
    """What `dvc metrics show` puts in a row below those of the two sides, in the same columns."""
    ratios = found.speed["ratios"] if found.speed else {}
    return {
        "test": {metric: one.mean for metric, one in found.differences.items()},
        "speed_ratio": {kind: ratio["mean"] for kind, ratio in ratios.items()},
    }


def _figures(found: Comparison, dataset: Dataset | None) -> dict[str, Any]:
    sides = (found.a, found.b)
    rows = [(TITLES[metric], one, found.margin(metric)) for metric, one in found.differences.items()]
    pooled = {side.look: _pooled(side) for side in sides}
    matrices = {look: metrics.confusion_matrix(*predictions) for look, predictions in pooled.items()}
    classes = dataset.classes if dataset else [str(label) for label in range(found.a.outputs.shape[-1])]
    drawn = {
        "differences": figures.differences(rows, found.a.look, found.b.look),
        "learning_curves": learning_curves({side.look: side.history for side in sides}),
        "reliability": figures.reliability(pooled, found.bins),
        "confusion": figures.confusions(matrices, classes),
    }
    return drawn | ({"speed": figures.speed(found.speed)} if found.speed else {})


def _pooled(side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (S * N, K) and labels (S * N,) of all seeds."""
    return side.outputs.reshape(-1, side.outputs.shape[-1]), np.tile(side.labels, len(side.seeds))


def rows(found: Comparison) -> list[tuple[str, ...]]:
    """The table that every place shows: what, A, B, A minus B or A / B with its interval, verdict."""
    lines: list[tuple[str, ...]] = []
    for metric, one in found.differences.items():
        unit, (low, high) = UNITS[metric], one.interval()
        form: Callable[[float], str] = f"{{:.{unit.decimals}f}}".format
        cells = (_spread(np.multiply(values, unit.scale), form) for values in (one.a, one.b))
        gap = f"{unit.signed(one.mean)} [{unit.signed(low)}, {unit.signed(high)}]"
        lines.append((f"{TITLES[metric]}{', %' * (unit.scale == 100)}", *cells, gap, found.label(metric)))
    if found.speed:
        sides = [found.speed["sides"][found.speed[key]] for key in ("a", "b")]
        titles = {
            "training": ("training images/s", "training_images_per_second", "{:,.0f}"),
            "inference": ("inference images/s", "inference_images_per_second", "{:,.0f}"),
            "latency": ("one image, ms", "latency_p50_milliseconds", "{:.2f}"),
        }
        for kind, (title, key, text) in titles.items():
            ratio = found.speed["ratios"][kind]
            gap = f"speed \u00d7{ratio['mean']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            lines.append((title, *(text.format(side[key]) for side in sides), gap, found.faster(kind)))
    seconds = [_spread(side.epoch_seconds, "{:.2f}".format) for side in (found.a, found.b)]
    lines.append(("seconds per epoch", seconds[0], seconds[1], "", ""))
    facts: dict[str, Callable[[Side], Any]] = {
        "parameters": lambda side: f"{side.manifest['settings']['parameters']:,}",
        "execution": lambda side: side.manifest["framework"]["execution"],
        "device": lambda side: side.device,
    }
    lines += [(title, fact(found.a), fact(found.b), "", "") for title, fact in facts.items()]
    return lines


def show(found: Comparison, path: Path, where: Sequence[str]) -> None:
    """Print table, verdict and where to look, and keep them for a `make repro` that has nothing to do."""
    a, b = found.a.look.title, found.b.look.title
    seeds = len(found.a.seeds)
    title = f"{seeds} seeds: mean \u00b1 standard deviation [95 % interval]" if seeds > 1 else "one seed"
    text = [found.sentence("accuracy"), *found.notes, *where]
    _print(title, ("", a, b, f"{a} \u2212 {b}", "verdict"), rows(found), text, path)


def show_all(found: Mapping[str, Comparison], folder: Path) -> None:
    """Print a row for each of several comparisons, by what tells them apart."""
    first = next(iter(found.values()))
    a, b = first.a.look.title, first.b.look.title
    lines = []
    for label, one in found.items():
        accuracy = rows(one)[0]
        lines.append((label, str(len(one.a.seeds)), *accuracy[1:]))
    head = ("configuration", "seeds", a, b, f"{a} \u2212 {b}, points", "verdict on test accuracy")
    notes = dict.fromkeys(note for one in found.values() for note in one.notes)
    _print(
        "mean \u00b1 standard deviation [95 % interval]",
        head,
        lines,
        [*notes, f"Reports: {folder}/<number>/report.html"],
    )


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
    with path.open("w") if path else nullcontext() as file:
        if file:
            targets.append(Console(file=file, width=110))
        for target in targets:
            target.print(table)
            for paragraph in text:
                target.print(paragraph, highlight=False, markup=False, soft_wrap=True)


def _markdown(found: Comparison) -> str:
    a, b = found.a.look.title, found.b.look.title
    lines = [f"**{found.sentence('accuracy')}**", "", f"| | {a} | {b} | {a} \u2212 {b} | verdict |", "|--|--|--|--|--|"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows(found)]
    return "\n".join([*lines, "", *found.notes])


def _spread(values: Any, form: Callable[[float], str]) -> str:
    summary = summarise(values)
    return form(summary.mean) if summary.n == 1 else f"{form(summary.mean)} \u00b1 {form(summary.std)}"
