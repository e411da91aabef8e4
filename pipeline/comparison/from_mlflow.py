"""Arms of a comparison from what is in MLflow: the frameworks of a sweep, or two arms that filters name; by seed."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..config.schema.whole import Config
from ..core import frameworks
from ..core.errors import UserError
from ..core.frameworks import SeriesStyle, find
from ..core.paths import PREPARED, main_root
from ..data.dataset import Dataset
from ..equality.fairness import differences, in_words
from ..tracking.reader import StoredRun, fetch, find_runs
from ..tracking.tracker import Tracker
from .arm import Arm, history_of, manifest_of
from .result import Comparison, compare_arms

_OTHER_STYLES: Final = (("#009E73", 3.4), ("#7A4FBF", 1.4))  # where both arms are of one framework
_SEEDS: Final = "tags.stage = 'train' and tags.seed != ''"


@dataclass(frozen=True)
class StoredComparison:
    """One comparison of what is in MLflow."""

    label: str
    """What tells it from the others, `train.batch_size=64`; empty of a single one."""
    comparison: Comparison
    dataset: Dataset | None
    """None: this machine has not the data."""


class SweepArms:
    """The configurations of a sweep that several frameworks were trained under. Raises `UserError` without any."""

    def __init__(self, tracker: Tracker, sweep: str) -> None:
        if not re.fullmatch(r"[\w .:-]+", sweep):
            raise UserError(f"sweep = {sweep}: not the name of a sweep, such as 2026-11-23_14-49-56")
        runs = find_runs(tracker, f"tags.sweep LIKE '%{sweep}%' and {_SEEDS}")
        if not runs:
            known = [run.tags.get("sweep", "") for run in find_runs(tracker, "tags.stage = 'sweep'")]
            raise UserError(
                f"sweep = {sweep}: no finished runs of it in {tracker.uri}; there are: {', '.join(known) or 'none'}"
            )
        by_pair: dict[str, dict[str, list[StoredRun]]] = {}
        for run in runs:
            by_pair.setdefault(run.tags.get("pair", ""), {}).setdefault(run.tags["framework"], []).append(run)
        whole = [arms for arms in by_pair.values() if len(arms) > 1]
        if not whole:
            raise UserError(
                f"sweep = {sweep}: no configuration that two frameworks were trained under; sweep over "
                f"framework={','.join(frameworks.names())}, or compare with a=<filter> b=<filter>"
            )
        parents = find_runs(tracker, f"tags.sweep = '{sweep}' and tags.stage = 'sweep'")
        self.parent = parents[0].id if parents else None
        """The sweep's run."""
        self.configurations, self.left_out = len(by_pair), len(by_pair) - len(whole)
        """How many there are, and how many of them were trained in one framework only."""
        self._tracker, self._pairs = tracker, [pair for arms in whole for pair in _pairs(arms)]

    def __len__(self) -> int:
        return len(self._pairs)

    def compare(self, config: Config, folder: Path) -> Iterator[StoredComparison]:
        """Compare one after another; `folder`: scratch for what is fetched."""
        loaded = [
            [_arm(self._tracker, runs, folder, find(name).style) for name, runs in pair.items()] for pair in self._pairs
        ]
        labels = _labels([a.manifest.settings for a, _ in loaded])
        several = len({b.title for _, b in loaded}) > 1
        for (a, b), label in zip(loaded, labels, strict=True):
            told = ", ".join(filter(None, (label, b.title if several else "")))
            yield StoredComparison(told, *_compare(a, b, config))


def compare_filters(tracker: Tracker, a: str, b: str, config: Config, folder: Path) -> StoredComparison:
    """Compare the runs that match one filter with those that match another.

    Raises `UserError` where a filter matches no runs, or those of several configurations.
    """
    arms, chosen = [], []
    for key, condition in (("a", a), ("b", b)):
        runs = find_runs(tracker, f"{condition} and {_SEEDS}")
        if not runs:
            raise UserError(f"{key} = {condition}: no finished runs that match, in {tracker.uri}")
        arms.append(_arm(tracker, runs, folder, SeriesStyle(key.upper(), "", 2), f"{key} = {condition}"))
        chosen.append(find(runs[0].tags["framework"]).style)
    one, other = (replace(arm, style=style) for arm, style in zip(arms, _styles(arms, chosen), strict=True))
    return StoredComparison("", *_compare(one, other, config))


def _pairs(arms: Mapping[str, Sequence[StoredRun]]) -> Iterator[dict[str, Sequence[StoredRun]]]:
    """Pair the reference, else the first framework that is there, with each of the others."""
    first, *others = sorted(arms, key=list(frameworks.names()).index)
    for other in others:
        yield {first: arms[first], other: arms[other]}


def _styles(arms: Sequence[Arm], chosen: Sequence[SeriesStyle]) -> Sequence[SeriesStyle]:
    """Tell two arms of one framework apart by what differs in their settings."""
    if chosen[0] != chosen[1]:
        return chosen
    titles = [f"{chosen[0].title} {label}".strip() for label in _labels([arm.manifest.settings for arm in arms])]
    if titles[0] == titles[1]:
        titles = [f"{title} ({key})" for title, key in zip(titles, "AB", strict=True)]
    return [SeriesStyle(title, *style) for title, style in zip(titles, _OTHER_STYLES, strict=True)]


def _compare(a: Arm, b: Arm, config: Config) -> tuple[Comparison, Dataset | None]:
    sections: dict[str, Callable[[Arm], Mapping[str, Any]]] = {
        "settings": lambda arm: arm.manifest.settings,
        "machine": lambda arm: arm.manifest.machine.model_dump(),
    }
    notes = []
    for section, read in sections.items():
        differing = differences(read(a), read(b))
        differing.pop("seeds", None)  # those that both have are compared
        if differing:
            notes.append(f"Not the same {section}: {in_words(differing)}.")
    comparison = compare_arms(a, b, config.compare, config.evaluate.calibration_bins, notes=notes)
    return comparison, _dataset(a.manifest.fingerprint)


def _arm(tracker: Tracker, runs: Sequence[StoredRun], folder: Path, style: SeriesStyle, asked: str = "") -> Arm:
    """Make one arm of these runs, the newest of each seed.

    Raises `UserError` where they are of several configurations.
    """
    groups = {(run.tags.get("framework", ""), run.tags.get("pair", "")): run for run in runs}
    if len(groups) > 1:
        settings = [
            manifest_of(_read(tracker, run, folder, "manifest.json")).settings | {"framework": framework}
            for (framework, _), run in groups.items()
        ]
        raise UserError(
            f"{asked}: matches {len(groups)} configurations, and an arm is one: {'; '.join(_labels(settings))}; "
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
        history += history_of(_read(tracker, run, folder, "history.csv"))
    return Arm(
        style=style,
        seeds=tuple(by_seed),
        outputs=np.stack(outputs),
        labels=labels,
        history=history,
        manifest=manifest_of(_read(tracker, runs[0], folder, "manifest.json")),
        runs={seed: run.id for seed, run in by_seed.items()},
    )


def _read(tracker: Tracker, run: StoredRun, folder: Path, path: str) -> Path:
    own = folder / run.id
    own.mkdir(exist_ok=True)
    return fetch(tracker, run, path, own)


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what tells each of several configurations from the others, `train.batch_size=64, ...`."""
    compared = [{key: value for key, value in one.items() if key not in ("seeds", "parameters")} for one in settings]
    varying: dict[str, None] = {}
    for other in compared[1:]:
        varying |= dict.fromkeys(differences(compared[0], other))
    last = [key.rpartition(".")[2] for key in varying]
    short = {key: name if last.count(name) == 1 else key for key, name in zip(varying, last, strict=True)}
    return [", ".join(f"{short[key]}={_at(one, key)}" for key in varying) for one in compared]


def _at(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _dataset(fingerprint: str) -> Dataset | None:
    """Return the prepared data with this fingerprint, where this machine has them."""
    root = main_root()
    for folder in (root / PREPARED, *(root / "data/cache").glob("*/")):
        if (folder / "dataset.json").exists():
            dataset = Dataset.open(folder)
            if dataset.fingerprint == fingerprint:
                return dataset
    return None
