"""What is compared of what is in MLflow: both frameworks of a sweep, or two sides that filters name; by seed."""

import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .comparison import Comparison, compare_sides
from .config import Config
from .data.dataset import Dataset
from .data.obtain import PREPARED
from .entry import main_root, parse_call
from .errors import UserError
from .fairness import differences, told
from .figures.looks import LOOKS, Look
from .progress import steps
from .publish import publish, show, show_all
from .side import Side, read_json, read_text, rows_of
from .tracking import Tracker
from .tracking.reader import StoredRun, fetch, find_runs

_KEYS = ("sweep", "a", "b")
_OTHER_LOOKS = (("#009E73", 3.4), ("#7A4FBF", 1.4))  # where both sides are of one framework
_SEEDS = "tags.stage = 'train' and tags.seed != ''"


def compare_stored(arguments: Sequence[str]) -> None:
    """`sweep=<id>`, or `a=<filter> b=<filter>`; further arguments are the configuration's. Raises `UserError`."""
    pairs = [argument.partition("=") for argument in arguments]
    asked = {key: value for key, _, value in pairs if key in _KEYS}
    config = parse_call("compare", [text for text in arguments if text.partition("=")[0] not in _KEYS]).config
    if set(asked) not in ({"sweep"}, {"a", "b"}):
        raise UserError(f"{' and '.join(asked)}: allowed: sweep=<id>, or both a=<filter> and b=<filter>")
    if (sweep := asked.get("sweep")) and not re.fullmatch(r"[\w .:-]+", sweep):
        raise UserError(f"sweep = {sweep}: not the name of a sweep, such as 2026-11-23_14-49-56")
    if empty := [key for key, value in asked.items() if not value]:
        raise UserError(f"{empty[0]} is empty; allowed: sweep=<id>, or a=<filter> and b=<filter>")
    tracker = Tracker(config.tracking, main_root())
    with tempfile.TemporaryDirectory() as folder:
        if "sweep" in asked:
            _sweep(tracker, asked["sweep"], config, Path(folder))
        else:
            _filters(tracker, asked["a"], asked["b"], config, Path(folder))


def _sweep(tracker: Tracker, sweep: str, config: Config, folder: Path) -> None:
    """Every configuration of the sweep that both frameworks were trained under."""
    runs = find_runs(tracker, f"tags.sweep LIKE '%{sweep}%' and {_SEEDS}")
    if not runs:
        known = [run.tags.get("sweep", "") for run in find_runs(tracker, "tags.stage = 'sweep'")]
        raise UserError(
            f"sweep = {sweep}: no finished runs of it in {tracker.uri}; there are: {', '.join(known) or 'none'}"
        )
    by_pair: dict[str, dict[str, list[StoredRun]]] = {}
    for run in runs:
        by_pair.setdefault(run.tags.get("pair", ""), {}).setdefault(run.tags["framework"], []).append(run)
    whole = {pair: sides for pair, sides in by_pair.items() if len(sides) == len(LOOKS)}
    if not whole:
        raise UserError(
            f"sweep = {sweep}: no configuration that both frameworks were trained under; sweep over "
            "framework=tensorflow,pytorch, or compare with a=<filter> b=<filter>"
        )
    parents = find_runs(tracker, f"tags.sweep = '{sweep}' and tags.stage = 'sweep'")
    kept = {"parent": parents[0].id if parents else None, "tags": {"sweep": sweep}}
    left_out = len(by_pair) - len(whole)
    home = _home("multirun", sweep) / "comparison"
    found: dict[str, Comparison] = {}
    with steps("compare", len(whole), "configurations") as progress:
        loaded = [[_side(tracker, sides[name], folder, LOOKS[name]) for name in LOOKS] for sides in whole.values()]
        labels = _labels([a.manifest["settings"] for a, _ in loaded])
        for number, ((a, b), label) in enumerate(zip(loaded, labels, strict=True)):
            output = home / str(number) if len(loaded) > 1 else home
            found[label], where = _compare(a, b, config, output, label=label.rpartition("=")[2], **kept)
            progress()
    if len(loaded) == 1:
        show(found[label], output / "table.txt", where)
    if len(loaded) > 1:
        show_all(found, home)
    if left_out:
        print(f"Left out, as trained in one framework only: {left_out} of {len(by_pair)} configurations.")


def _filters(tracker: Tracker, a: str, b: str, config: Config, folder: Path) -> None:
    sides, frameworks = [], []
    for key, condition in (("a", a), ("b", b)):
        runs = find_runs(tracker, f"{condition} and {_SEEDS}")
        if not runs:
            raise UserError(f"{key} = {condition}: no finished runs that match, in {tracker.uri}")
        sides.append(_side(tracker, runs, folder, Look(key.upper(), "", 2), f"{key} = {condition}"))
        frameworks.append(runs[0].tags["framework"])
    settings = [side.manifest["settings"] for side in sides]
    if frameworks[0] != frameworks[1]:
        looks = [LOOKS[framework] for framework in frameworks]
    else:
        titles = [f"{LOOKS[frameworks[0]].title} {label}".strip() for label in _labels(settings)]
        if titles[0] == titles[1]:
            titles = [f"{title} ({key})" for title, key in zip(titles, "AB", strict=True)]
        looks = [Look(title, *look) for title, look in zip(titles, _OTHER_LOOKS, strict=True)]
    one, other = (replace(side, look=look) for side, look in zip(sides, looks, strict=True))
    output = Path("outputs") / time.strftime("%Y-%m-%d_%H-%M-%S-comparison")
    found, where = _compare(one, other, config, output, tags={"a": a, "b": b})
    show(found, output / "table.txt", where)


def _compare(a: Side, b: Side, config: Config, output: Path, **kept: Any) -> tuple[Comparison, list[str]]:
    one, other = a.manifest, b.manifest
    notes = []
    for section in ("settings", "machine"):
        differ = differences(one[section], other[section])
        differ.pop("seeds", None)  # those that both have are compared
        if differ:
            notes.append(f"Not the same {section}: {told(differ)}.")
    found = compare_sides(a, b, config.compare, config.evaluate.calibration_bins, notes=notes)
    dataset = _dataset(one["settings"]["data"]["fingerprint"])
    return found, publish(found, output, dataset, config.tracking, **kept)


def _side(tracker: Tracker, runs: Sequence[StoredRun], folder: Path, look: Look, asked: str = "") -> Side:
    """One side of these runs, the newest of each seed. Raises `UserError` where they are of several configurations."""
    groups = {(run.tags.get("framework", ""), run.tags.get("pair", "")): run for run in runs}
    if len(groups) > 1:
        settings = [
            read_json(_read(tracker, run, folder, "manifest.json"))["settings"] | {"framework": framework}
            for (framework, _), run in groups.items()
        ]
        raise UserError(
            f"{asked}: matches {len(groups)} configurations, and a side is one: {'; '.join(_labels(settings))}; "
            "narrow the filter"
        )
    by_seed: dict[int, StoredRun] = {}
    for run in runs:  # the newest first
        by_seed.setdefault(int(run.tags["seed"]), run)
    outputs, labels, history = [], np.zeros(0, np.int64), []
    for run in by_seed.values():
        with np.load(_read(tracker, run, folder, "evaluate/predictions.npz"), allow_pickle=False) as file:
            outputs.append(file["logits"])
            labels = file["labels"]
        history += rows_of(read_text(_read(tracker, run, folder, "history.csv")))
    manifest = read_json(_read(tracker, runs[0], folder, "manifest.json"))
    ids = {seed: run.id for seed, run in by_seed.items()}
    return Side(look, tuple(by_seed), np.stack(outputs), labels, history, manifest, ids)


def _read(tracker: Tracker, run: StoredRun, folder: Path, path: str) -> Path:
    own = folder / run.id
    own.mkdir(exist_ok=True)
    return fetch(tracker, run, path, own)


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells each of several configurations from the others, `train.batch_size=64, ...`."""
    kept = [{key: value for key, value in one.items() if key not in ("seeds", "parameters")} for one in settings]
    varying: dict[str, None] = {}
    for other in kept[1:]:
        varying |= dict.fromkeys(differences(kept[0], other))
    last = [key.rpartition(".")[2] for key in varying]
    short = {key: name if last.count(name) == 1 else key for key, name in zip(varying, last, strict=True)}
    return [", ".join(f"{short[key]}={_at(one, key)}" for key in varying) for one in kept]


def _at(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _dataset(fingerprint: str) -> Dataset | None:
    """The prepared data with this fingerprint, where this machine has them."""
    root = main_root()
    folders: Iterable[Path] = (root / PREPARED, *(root / "data/cache").glob("*"))
    for folder in folders:
        if (folder / "dataset.json").exists():
            dataset = Dataset.open(folder)
            if dataset.fingerprint == fingerprint:
                return dataset
    return None


def _home(folder: str, name: str) -> Path:
    """Where files of the sweep `name` go: its own folder, or one under `outputs/` where that is gone."""
    own = Path(folder) / name
    return own if own.exists() else Path("outputs") / name
