"""The page of a search: one HTML file with its own style and pictures, which needs no network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..comparison.arm import Arm
from ..comparison.result import Comparison
from ..config.labels import short_keys
from ..config.schema.section import Section
from ..core.frameworks import SeriesStyle, find
from ..evaluation.metrics import predicted_labels
from ..evaluation.summary import summarise
from ..search.record import SearchRecord
from ..search.space import Dimension
from ..search.study import Trial, ranks, short
from .figures import search as figures

_TEMPLATE = Path(__file__).with_name("search.html.j2")


@dataclass(frozen=True)
class JudgedPair:
    """Two frameworks at chosen points, as the page shows them."""

    title: str
    """Where they were: `each at its own best point`."""
    comparison: Comparison
    report: str
    """Path of the report of the comparison, relative to the page."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    record: SearchRecord
    trials: Sequence[Trial]
    sentence: str
    """The answer."""
    model: str
    data: str
    seeds: Sequence[int]
    chosen: Mapping[str, int]
    """Number of the best trial by framework."""
    common: int
    """Number of the best trial by the mean over the frameworks."""
    importances: Mapping[str, Mapping[str, float]]
    """By framework and key; empty where too few trials are complete."""
    judged: Sequence[JudgedPair]
    arms: Mapping[tuple[int, str], Arm]
    """The chosen points under fresh seeds, by trial and framework."""

    @property
    def styles(self) -> dict[str, SeriesStyle]:
        """The style of each framework."""
        return {name: find(name).style for name in self.record.space.frameworks}

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(trial.state for trial in self.trials)


def figures_of(result: SearchResult) -> dict[str, Any]:
    """Draw every figure of the page, by name."""
    complete, styles = [trial for trial in result.trials if trial.state == "complete"], result.styles
    by_number = {style: {trial.number: trial.accuracy[name] for trial in complete} for name, style in styles.items()}
    pruned = [trial.number for trial in result.trials if trial.state == "pruned"]
    drawn = {"best_so_far": figures.best_so_far(by_number, pruned, len(result.trials))}
    axes = [_axis(each, complete) for each in result.record.space.dimensions]
    scores = {style: [trial.accuracy[name] for trial in complete] for name, style in styles.items()}
    drawn["slices"] = figures.slices(axes, scores)
    known = {styles[name]: values for name, values in result.importances.items() if values}
    if known and len(axes) > 1:
        drawn["importances"] = figures.importances(known)
    return drawn


def page(result: SearchResult, pictures: Mapping[str, str]) -> str:
    """Render the HTML; `pictures`: `data:` addresses by name."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        result=result,
        record=result.record,
        settings=result.record.settings,
        styles=result.styles,
        pictures=pictures,
        keys=list(short_keys(_keys(result)).values()),
        in_words=_settings,
        best=[_row(result, rank, trial) for rank, trial in _shown(result)],
        trials=[_row(result, None, trial) for trial in result.trials],
        points=[_point(result, number, name) for number, name in result.arms],
        epochs={name: sum(trial.epochs.get(name, 0) for trial in result.trials) for name in result.styles},
        agree=len(set(result.chosen.values())) == 1,
        space=[(each.key, each.in_words) for each in result.record.space.dimensions],
        verdict=_verdict(result),
    )


def _settings(section: Section) -> str:
    """Describe a sampler or a pruner: its name, and its settings."""
    name, *others = section.model_dump().values()
    keys = list(section.model_dump())[1:]
    return ", ".join([str(name), *(f"{key} {value}" for key, value in zip(keys, others, strict=True))])


def _axis(dimension: Dimension, trials: Sequence[Trial]) -> figures.Axis:
    values = [trial.point[dimension.key] for trial in trials]
    return figures.Axis(dimension.key, values, dimension.log, dimension.choices)


def _shown(result: SearchResult) -> list[tuple[str, Trial]]:
    """Return the best trials by the mean with their ranks, and those that are best for a framework."""
    places, wanted = ranks(result.trials), {result.common, *result.chosen.values()}
    top = places[: result.record.settings.top]
    return top + [(rank, trial) for rank, trial in places[len(top) :] if trial.number in wanted]


def _row(result: SearchResult, rank: str | None, trial: Trial) -> dict[str, Any]:
    best_for = [name for name, number in result.chosen.items() if number == trial.number]
    return {
        "rank": rank,
        "trial": trial,
        "values": [short(trial.point[key]) if key in trial.point else "" for key in _keys(result)],
        "scores": [_percent(trial.accuracy.get(name)) for name in result.styles],
        "mean": _percent(trial.value),
        "best_for": best_for,
        "common": trial.number == result.common,
    }


def _keys(result: SearchResult) -> list[str]:
    return [each.key for each in result.record.space.dimensions]


def _point(result: SearchResult, number: int, name: str) -> dict[str, Any]:
    """Return a row of the table of chosen points: validation accuracy when chosen, test accuracy with fresh seeds."""
    arm, trial = result.arms[number, name], next(trial for trial in result.trials if trial.number == number)
    test = summarise([float((predicted_labels(outputs) == arm.labels).mean()) for outputs in arm.outputs])
    kinds = {"its own best": result.chosen[name] == number, "best for all": result.common == number}
    spread = f" ± {100 * test.std:.2f}" if test.n > 1 else ""
    return {
        "framework": name,
        "trial": trial,
        "values": [short(trial.point[key]) for key in _keys(result)],
        "kind": ", ".join(kind for kind, is_it in kinds.items() if is_it),
        "validation": _percent(trial.accuracy[name]),
        "test": f"{100 * test.mean:.2f}{spread}",
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _verdict(result: SearchResult) -> str:
    """Return the kind of the first verdict, which colours the page's head."""
    return result.judged[0].comparison.verdicts["accuracy"].kind if result.judged else "equivalent"
