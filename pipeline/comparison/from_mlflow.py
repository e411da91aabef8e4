"""Arms of a comparison read from MLflow: the frameworks of a sweep, or two arms that filters select."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..config.labels import short_label
from ..config.schema.search import TRIAL
from ..config.schema.whole import Config
from ..core import frameworks
from ..core.errors import UserError
from ..core.frameworks import SeriesStyle, find
from ..core.paths import main_root
from ..data.cache import with_fingerprint
from ..data.dataset import Dataset
from ..equality.fairness import differences, in_words
from ..models.manifest import Manifest
from ..tracking.reader import StoredRun, fetch, find_runs
from ..tracking.tracker import Tracker
from ..tracking.views import in_sweep
from .arm import Arm, history_of
from .result import Comparison, compare_arms

_SAME_FRAMEWORK_STYLES: Final = (("#009E73", 3.4), ("#7A4FBF", 1.4))
"""Colour and line width of A and B if both arms were trained in one framework."""
_SEEDS: Final = "tags.stage = 'train' and tags.seed != ''"
"""Selects the runs that trained one seed each."""


@dataclass(frozen=True)
class StoredComparison:
    """One comparison of two arms from MLflow."""

    label: str
    """The settings that tell it from the others, such as `batch_size=64`; empty for a single comparison."""
    comparison: Comparison
    dataset: Dataset | None
    """None if the data are not on this machine."""
    brief: str = ""
    """As `label`, shorter: for the name of a run."""


class SweepArms:
    """The arms of a sweep: every configuration that at least two frameworks were trained under.

    Raises `UserError` if `sweep` is not a sweep's name, has no finished runs, or has no such configuration.
    """

    def __init__(self, tracker: Tracker, sweep: str) -> None:
        if Path(sweep).name != sweep:  # results are written below a folder of this name
            raise UserError(f"sweep = {sweep}: not the name of a sweep, such as 2026-11-23_14-49-56")
        runs = find_runs(tracker, f"{in_sweep(sweep)} and {_SEEDS}") or [
            run for run in find_runs(tracker, f"tags.sweep != '' and {_SEEDS}") if run.tags["sweep"] == sweep
        ]  # runs of another version, or tagged by hand, have the name alone
        runs = [run for run in runs if TRIAL not in run.tags]  # a search tests the points that it chose, only
        if not runs:
            sweeps = [run.tags.get("sweep", "") for run in find_runs(tracker, "tags.stage = 'sweep'")]
            folder = Path("multirun") / sweep
            advice = f"; {folder} has results: the command of the sweep, run again, sends them" * folder.exists()
            raise UserError(
                f"sweep = {sweep}: no finished runs of it in {tracker.uri}; "
                f"there are: {', '.join(sweeps) or 'none'}{advice}"
            )
        by_pair: dict[str, dict[str, list[StoredRun]]] = {}
        for run in runs:
            by_pair.setdefault(run.tags.get("pair", ""), {}).setdefault(run.tags["framework"], []).append(run)
        comparable = [arms for arms in by_pair.values() if len(arms) > 1]
        if not comparable:
            raise UserError(
                f"sweep = {sweep}: no configuration that two frameworks were trained under; sweep over "
                f"framework={','.join(frameworks.names())}, or compare with a=<filter> b=<filter>"
            )
        parents = find_runs(tracker, f"{in_sweep(sweep)} and tags.stage = 'sweep'")
        self.parent = parents[0].id if parents else None
        """Id of the sweep's own run; None if MLflow has none."""
        self.configurations, self.left_out = len(by_pair), len(by_pair) - len(comparable)
        """Number of configurations, and number of those that only one framework was trained under."""
        self._tracker, self._pairs = tracker, [pair for arms in comparable for pair in _pairs(arms)]

    def __len__(self) -> int:
        return len(self._pairs)

    def compare(self, config: Config, folder: Path) -> Iterator[StoredComparison]:
        """Yield one comparison after another; `folder` is scratch space for the artifacts."""
        loaded = [
            [_arm(self._tracker, runs, folder, find(name).style) for name, runs in pair.items()] for pair in self._pairs
        ]
        telling = _telling([a.manifest.settings for a, _ in loaded])
        several = len({b.title for _, b in loaded}) > 1
        for (a, b), settings in zip(loaded, telling, strict=True):
            other = b.title if several else ""
            label, brief = (
                separator.join(filter(None, (text, other)))
                for separator, text in ((", ", _label(settings)), (" ", short_label(settings)))
            )
            yield StoredComparison(label, *_compare(a, b, config), brief)


def compare_filters(tracker: Tracker, a: str, b: str, config: Config, folder: Path) -> StoredComparison:
    """Compare the runs that match the filter `a` with those that match `b`; each is a filter as the MLflow UI takes it.

    Raises `UserError` if a filter is malformed, matches no finished runs, or matches several configurations.
    """
    arms, styles = [], []
    for key, condition in (("a", a), ("b", b)):
        runs = find_runs(tracker, f"{condition} and {_SEEDS}")
        if not runs:
            raise UserError(f"{key} = {condition}: no finished runs that match, in {tracker.uri}")
        arms.append(_arm(tracker, runs, folder, SeriesStyle(key.upper(), "", 2), f"{key} = {condition}"))
        styles.append(find(runs[0].tags["framework"]).style)
    arm_a, arm_b = (replace(arm, style=style) for arm, style in zip(arms, _distinct(styles, arms), strict=True))
    return StoredComparison("", *_compare(arm_a, arm_b, config))


def compare_runs(
    tracker: Tracker, a: Sequence[str], b: Sequence[str], titles: tuple[str, str], config: Config, folder: Path
) -> Comparison:
    """Compare the trainings of two configurations, given by the ids of their seeds' runs, under the seeds of both.

    Raises `UserError` if a run is not in this store, or if they have no seed in common.
    """
    arms: list[Arm] = []
    for ids, title, style in zip((a, b), titles, _SAME_FRAMEWORK_STYLES, strict=True):
        listed = ", ".join(f"'{run}'" for run in ids)
        runs = find_runs(tracker, f"attributes.run_id IN ({listed}) and {_SEEDS}") if ids else []
        if len(runs) < len(ids) or not ids:
            raise UserError(f"{title}: {len(ids) - len(runs)} of its {len(ids)} runs are not in {tracker.uri}")
        arms.append(_arm(tracker, runs, folder, SeriesStyle(title, *style), title))
    return _compare(arms[0], arms[1], config)[0]


def _pairs(arms: Mapping[str, Sequence[StoredRun]]) -> Iterator[dict[str, Sequence[StoredRun]]]:
    """Pair the reference with each other framework; without the reference, the first framework takes its place."""
    reference, *others = sorted(arms, key=list(frameworks.names()).index)
    for name in others:
        yield {reference: arms[reference], name: arms[name]}


def _distinct(styles: Sequence[SeriesStyle], arms: Sequence[Arm]) -> Sequence[SeriesStyle]:
    """Tell two arms of one framework apart by the settings that differ, else by the letters A and B."""
    if styles[0] != styles[1]:
        return styles
    titles = [f"{styles[0].title} {label}".strip() for label in _labels([arm.manifest.settings for arm in arms])]
    if titles[0] == titles[1]:
        titles = [f"{title} ({key})" for title, key in zip(titles, "AB", strict=True)]
    return [SeriesStyle(title, *style) for title, style in zip(titles, _SAME_FRAMEWORK_STYLES, strict=True)]


def _compare(a: Arm, b: Arm, config: Config) -> tuple[Comparison, Dataset | None]:
    sections: dict[str, Callable[[Arm], Mapping[str, Any]]] = {
        "settings": lambda arm: arm.manifest.settings,
        "machine": lambda arm: arm.manifest.machine.model_dump(),
    }
    notes = []
    for section, read in sections.items():
        differing = differences(read(a), read(b))
        differing.pop("seeds", None)  # arms may differ in seeds: only common ones are compared
        if differing:
            notes.append(f"Not the same {section}: {in_words(differing)}.")
    comparison = compare_arms(a, b, config.compare, config.evaluate.calibration_bins, notes=notes)
    return comparison, dataset_of(a.manifest.fingerprint)


def _arm(tracker: Tracker, runs: Sequence[StoredRun], folder: Path, style: SeriesStyle, selector: str = "") -> Arm:
    """Build one arm from the newest run of each seed; `runs` come newest first.

    Raises `UserError`, which begins with `selector`, if the runs belong to several configurations.
    """
    groups = {(run.tags.get("framework", ""), run.tags.get("pair", "")): run for run in runs}
    if len(groups) > 1:
        settings = [
            Manifest.read(_read(tracker, run, folder, "manifest.json")).settings | {"framework": framework}
            for (framework, _), run in groups.items()
        ]
        raise UserError(
            f"{selector}: matches {len(groups)} configurations, and an arm is one: {'; '.join(_labels(settings))}; "
            "narrow the filter"
        )
    by_seed: dict[int, StoredRun] = {}
    for run in runs:
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
        manifest=Manifest.read(_read(tracker, runs[0], folder, "manifest.json")),
        runs={seed: run.id for seed, run in by_seed.items()},
    )


def _read(tracker: Tracker, run: StoredRun, folder: Path, path: str) -> Path:
    run_folder = folder / run.id
    run_folder.mkdir(exist_ok=True)
    return fetch(tracker, run, path, run_folder)


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each configuration what tells it from the others: `batch_size=64, ...`."""
    return list(map(_label, _telling(settings)))


def _label(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _telling(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return for each configuration the settings that tell it from the others.

    A key is shortened to its last part where that is unambiguous. Names of networks or optimisers that differ stand for
    all that differs with them.
    """
    compared = [{key: value for key, value in each.items() if key not in ("seeds", "parameters")} for each in settings]
    varying: dict[str, None] = {}
    for configuration in compared[1:]:
        varying |= dict.fromkeys(differences(compared[0], configuration))
    named = [key.removesuffix(".name") for key in varying if key.endswith(".name")]
    brief = [key for key in varying if key.endswith(".name") or not key.startswith(tuple(f"{n}." for n in named))]
    telling = _values_of(compared, brief)
    distinct = len({repr(each) for each in compared})
    return telling if len(set(map(_label, telling))) == distinct else _values_of(compared, list(varying))


def _values_of(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, str]]:
    shown = {key: key.removesuffix(".name") for key in keys}  # `model=lenet5`
    last_parts = [key.rpartition(".")[2] for key in shown.values()]
    short = {key: part if last_parts.count(part) == 1 else key for key, part in zip(shown, last_parts, strict=True)}
    return [{short[key]: str(_value_at(each, key)) for key in keys} for each in settings]


def _value_at(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def dataset_of(fingerprint: str) -> Dataset | None:
    """Return the prepared data with this fingerprint, or None if they are not on this machine."""
    return next(with_fingerprint(main_root(), fingerprint), None)
