"""Stage `compare`: both frameworks side by side."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import report
from .entry import stage
from .errors import ParityError, UserError
from .fairness import differences, told
from .statistics import Summary, summarise

FRAMEWORKS = ("tensorflow", "pytorch")


@stage("compare", "seeds")
def main(*, seeds: Sequence[int]) -> None:
    """Write `results/comparison/` and print the table."""
    output = Path("results/comparison")
    output.mkdir(parents=True, exist_ok=True)
    require_fair(Path("results"))
    sides = {framework: _side(Path("results") / framework, seeds) for framework in FRAMEWORKS}
    histories = {framework: _history(Path("results") / framework) for framework in FRAMEWORKS}
    report.learning_curves(histories, output / "learning_curves.png")
    document = {
        framework: {name: vars(value) if isinstance(value, Summary) else value for name, value in side.items()}
        for framework, side in sides.items()
    }
    (output / "comparison.json").write_text(
        json.dumps({"seeds": list(seeds), **document}, indent=2, default=str) + "\n"
    )
    _show(_table(sides, len(seeds)), output / "table.txt")


def require_fair(results: Path) -> None:
    """Raise `ParityError` unless both sides compute the same (`parity`), and were trained alike, as was traced."""
    parity = _read(results / "parity/parity.json")
    if not parity["passed"]:
        raise ParityError(f"refused: the two frameworks do not compute the same: {parity['reason']}")
    one, other = (_read(results / framework / "manifest.json") for framework in FRAMEWORKS)
    found = differences(one["settings"], other["settings"]) | differences(one["machine"], other["machine"], "machine.")
    if found:
        raise ParityError(f"refused: {' and '.join(FRAMEWORKS)} were not trained alike: {told(found)}")
    traced = _read(results / "parity/manifest.json")["settings"]
    shared = {key: (traced[key], one["settings"][key]) for key in ("model", "train", "data")}
    found = {k: v for key, (a, b) in shared.items() for k, v in differences(a, b, f"{key}.").items()}
    if found:
        raise ParityError(f"refused: parity was shown for other settings than were trained: {told(found)}")


def _side(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    judged, history = _read(folder / "scores.json"), _history(folder)
    described = _read(folder / "models" / f"seed_{seeds[0]}" / "classifier.json")
    trained = [row for row in history if row["split"] == "train"]
    per_seed = [[row for row in trained if int(row["seed"]) == seed] for seed in seeds]
    seconds = [sum(float(row["seconds"]) for row in rows) / len(rows) for rows in per_seed]
    examples = _read(Path("data/prepared/dataset.json"))["examples"]["train"]
    scores = [judged["seeds"][str(seed)] for seed in seeds]
    device = described["device"]
    return {
        "test_accuracy": summarise([score["accuracy"] for score in scores]),
        "test_loss": summarise([score["loss"] for score in scores]),
        "train_images_per_second": summarise([examples / s for s in seconds]),
        "epoch_seconds": summarise(seconds),
        "parameters": described["parameters"],
        "execution": described["execution"],
        "device": device["name"] if device["type"] == "gpu" else f"CPU, {device['threads']} threads",
    }


def _history(folder: Path) -> list[dict[str, str]]:
    try:
        with (folder / "history.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{folder / 'history.csv'}: cannot be read ({error.strerror}); run `dvc repro`") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `dvc repro`") from error


def _show(table: Any, path: Path) -> None:
    """Print the table, and keep it for a `make repro` that has nothing to do."""
    from rich.console import Console

    from .progress import console

    with path.open("w") as file:
        Console(file=file, width=100).print(table)
    console.print(table)


def _table(sides: dict[str, dict[str, Any]], seeds: int) -> Any:
    from rich.table import Table

    title = f"{seeds} seeds, mean ± standard deviation" if seeds > 1 else "one seed: no spread to judge by"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for framework in FRAMEWORKS:
        table.add_column(report.TITLES[framework], justify="right")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "test accuracy": lambda side: _pm(side["test_accuracy"], "{:.2%}"),
        "test log-loss": lambda side: _pm(side["test_loss"], "{:.4f}"),
        "training images/s": lambda side: _pm(side["train_images_per_second"], "{:,.0f}"),
        "seconds per epoch": lambda side: _pm(side["epoch_seconds"], "{:.2f}"),
        "parameters": lambda side: f"{side['parameters']:,}",
        "execution": lambda side: side["execution"],
        "device": lambda side: side["device"],
    }
    for name, render in rows.items():
        table.add_row(name, *(render(sides[framework]) for framework in FRAMEWORKS))
    return table


def _pm(summary: Summary, form: str) -> str:
    mean = form.format(summary.mean)
    return mean if summary.n == 1 else f"{mean} ± {form.format(summary.std)}"


if __name__ == "__main__":
    main(sys.argv[1:])
