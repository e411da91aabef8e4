"""The MLflow UI of an experiment: saved views (tags of the experiment) and deep links into it.

This module defines what the views show, in the keys of the UI's own state; `mlflow_compat` packs it as the UI does.
MLflow documents neither format: tests/test_browser.py checks what the UI makes of them.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..config.schema.search import TRIAL
from ..core import frameworks
from .mlflow_compat import VIEW_TAG, pack_view, ui_path, view_title

TAG = VIEW_TAG
"""Prefix of the experiment tags that hold saved views."""
CURVES = f"{TAG}curves"
RANKING, ALL_SEEDS = "leaderboard", "runs"
"""Keys of the views of the data set that was trained on last."""
NOTE = "mlflow.note.content"
"""Tag that holds the experiment's description: the bar of links."""
SIDE = "ui_side"
"""Tag of a run by which curves are grouped; its value is the legend's text.

MLflow takes a group's colour from 29, by a hash of `tag.<name>.<value>`; this name with the titles of TensorFlow and
PyTorch gives nearly those of the figures, orange #be501e and blue #2272b4.
"""
LEADERBOARD = "leaderboard"
"""Tag of the run that represents a training: the mean over its seeds, or a sweep's single seed."""
REGISTRY = "registry"
"""Tag of the runs whose network is, or was, the champion of the registry: `champion` or `previous`."""
GROUPS = f"tags.{LEADERBOARD} = 'true'"
SEEDS = "tags.seed IS NOT NULL"  # every single training, and every model that was restored without one
DATA = "tags.stage = 'describe'"  # a page about each data set

_SPEED = "throughput/train_images_per_second"
_RESULTS = {
    "test/accuracy_percent": 130,
    "test/accuracy_percent_std": 80,
    "test/loss": 75,
    "validation/accuracy_percent": 120,
    _SPEED: 85,
}
_SETTINGS = {"data.name": 105, "model.name": 90, "train.optimizer.learning_rate": 80, "train.batch_size": 60}
_SETTINGS |= {"train.epochs": 55, "seeds": 65}
_METRICS = {f"metrics.`{name}`": width for name, width in _RESULTS.items()}
_COUNTS = {"train_images": 125, "validation_images": 152, "test_images": 120, "classes": 95}
_DATA_METRICS = {f"metrics.`data/{name}`": width for name, width in _COUNTS.items()}
_DATA_COLUMNS = _DATA_METRICS | {"metrics.`data/test_images_in_train`": 190, "tags.`data.fingerprint`": 255}
_SELECTION = {"validation/accuracy": 136, "validation/loss": 115, _SPEED: 130}
"""Metrics of a sweep's view, best first by the first one: no test scores, as one chooses by what is on top."""
_SHOWN_BARS = "FIRST_20_RUNS"  # more are unreadable lines; the UI has 10, 20 and all
_COLUMNS = (
    _METRICS
    | {f"params.`{name}`": width for name, width in _SETTINGS.items()}
    | {"tags.`device`": 55, "tags.`dvc.exp`": 80, f"tags.`{REGISTRY}`": 80}
)
_RANKED = _COLUMNS | {"tags.`sweep`": 150}


def sweep_tags(names: Sequence[str]) -> dict[str, str]:
    """Return the tags of a run that belongs to these sweeps: their names, and a tag for each that filters search by."""
    return {"sweep": " ".join(names), **{_membership(name): "true" for name in names}}


def superseded(sweep: str) -> dict[str, str]:
    """Return the tags of a run that another has taken the place of in a sweep: no filter finds it any more."""
    return {_membership(sweep): "superseded"}


def in_sweep(name: str) -> str:
    """Return a filter for the runs of a sweep.

    It holds no name: MLflow's filters escape neither quotes nor wild cards, and a name may be a part of another.
    """
    return f"tags.`{_membership(name)}` = 'true'"


def _membership(name: str) -> str:
    """Return the name of the tag of a run that belongs to a sweep."""
    return f"sweep.{digest_of(name)}"


def sweep_key(name: str) -> str:
    """Return the key of a sweep's view: a tag's name may not hold every character that a folder's name may."""
    return f"sweep-{digest_of(name)}"


def digest_of(name: str) -> str:
    """Return a digest of a name: 12 hexadecimal digits."""
    return hashlib.blake2b(os.fsencode(name), digest_size=6).hexdigest()


def views(
    current: Sequence[str] = (), sweeps: Mapping[str, Sequence[str]] | None = None, *, trials: bool = False
) -> dict[str, str]:
    """Return the experiment's tags, by name: `leaderboard`, `runs`, `curves`, `data`, and one for each sweep.

    The first two show all data sets, until `rankings` says which one. Each name has the prefix `TAG`. `current`: ids of
    the seeds' runs that the pipeline trained last: `curves` shows these, and no older ones. `sweeps`: a sweep's name to
    the parameters that it varies; see `sweep_key`. `trials`: the sweeps are searches; their views show the trials
    alone, not the points that were chosen by them.
    """
    shown = {
        RANKING: _view("Leaderboard: one row per training", GROUPS, _RANKED),
        ALL_SEEDS: _view("Runs: one row per seed", SEEDS, _RANKED),
        "curves": _view(f"Curves: {frameworks.listed()}", _only(current), _COLUMNS, _curves()),
        "data": _view("Data: one row per data set", DATA, _DATA_COLUMNS),
    }
    for sweep, varied in (sweeps or {}).items():
        filter_ = f"{GROUPS} AND {in_sweep(sweep)}" + (f" AND tags.`{TRIAL}` IS NOT NULL" if trials else "")
        columns = {f"metrics.`{name}`": width for name, width in _SELECTION.items()}
        columns |= {f"params.`{name}`": min(max(90, 7 * len(name)), 200) for name in ("framework", *varied)}
        columns |= {f"tags.`{TRIAL}`": 95, "tags.`search.state`": 95} if trials else {"tags.`sweep.job`": 85}
        title = f"{'Search' if trials else 'Sweep'} {sweep}"
        shown[sweep_key(sweep)] = _view(title, filter_, columns, _sweep(varied), order="validation/accuracy")
    return {TAG + key: value for key, value in shown.items()}


def rankings(data: str, fingerprint: str) -> dict[str, str]:
    """Return the tags of the views of one data set, by name: scores on two test sets have no order.

    These are the leaderboard of this data set, and `leaderboard` and `runs`, which show what was trained on last.
    """
    own, title = f" AND tags.`data.fingerprint` = '{fingerprint}'", f"{data} ({fingerprint[:8]})"
    shown = {
        RANKING: _view("Leaderboard: one row per training, of the latest data", GROUPS + own, _RANKED),
        ALL_SEEDS: _view("Runs: one row per seed, of the latest data", SEEDS + own, _RANKED),
        f"{RANKING}-{fingerprint[:12]}": _view(f"Leaderboard of {title}", GROUPS + own, _RANKED),
    }
    return {TAG + key: value for key, value in shown.items()}


def leaderboards(experiment_id: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the path of each data set's leaderboard, by its title; `tags`: those of the experiment."""
    start = f"{TAG}{RANKING}-"
    keys = [name.removeprefix(TAG) for name in sorted(tags) if name.startswith(start)]
    return {view_title(tags[TAG + key]): view_page(experiment_id, key) for key in keys}


def view_page(experiment_id: str, key: str, *, charts: bool = False) -> str:
    """Return the path of a saved view; `charts`: show charts, which a view cannot store."""
    return ui_path(experiment_id, "runs", view=key, charts=charts)


def note(experiment_id: str, report: str | None = None) -> str:
    """Return the experiment's description: a bar of links, in Markdown. The UI's own first page shows no metrics.

    `report`: the id of the run that holds the latest `report.html`.
    """
    pages = {
        "Leaderboard": view_page(experiment_id, "leaderboard"),
        "Seeds": view_page(experiment_id, "runs"),
        "Curves": view_page(experiment_id, "curves", charts=True),
        "Models": models_page(experiment_id),
        "Data": view_page(experiment_id, "data"),
    }
    if report:
        pages["Report: which is better, and how sure are we?"] = run_page(experiment_id, report, "report.html")
    return " \u00b7 ".join(f"[{name}]({path.removeprefix('/')})" for name, path in pages.items())


def run_page(experiment_id: str, run_id: str, artifact: str | None = None) -> str:
    """Return the path of a run's page, or of one of its artifacts."""
    return ui_path(experiment_id, f"runs/{run_id}" + (f"/artifacts/{quote(artifact)}" if artifact else ""))


def models_page(experiment_id: str, *, charts: bool = False) -> str:
    """Return the path of the table of models; `charts`: a bar chart for each of their metrics."""
    return ui_path(experiment_id, "models", charts=charts)


def model_page(experiment_id: str, model_id: str) -> str:
    """Return the path of a model's page."""
    return ui_path(experiment_id, f"models/{model_id}")


def _only(runs: Sequence[str]) -> str:
    """Return a search filter for these runs; for all seeds outside of sweeps if there are none.

    MLflow's filters know IN for ids alone, and no OR.
    """
    ids = ", ".join(f"'{run}'" for run in runs)
    return f"attributes.run_id IN ({ids})" if runs else f"{SEEDS} AND tags.sweep IS NULL"


def _view(
    name: str,
    filter_: str,
    columns: Mapping[str, int],
    charts: Mapping[str, Any] | None = None,
    order: str = "test/accuracy_percent",
) -> str:
    # ordered by a metric: ordered by time, the UI would nest children below their parents
    state = {"searchFilter": filter_, "orderByKey": f"metrics.`{order}`", "orderByAsc": False}
    state |= {"selectedColumns": list(columns), "columnOrder": list(columns), "columnWidths": columns, **(charts or {})}
    return pack_view(name, state)


def _curves() -> dict[str, Any]:
    bars = ["test/accuracy", "test/loss", _SPEED, "system/peak_memory_mebibytes"]
    lines = ["validation/accuracy", "validation/loss", "train/loss", "train/step_loss"]
    results = [_chart("BAR", "results", metricKey=name) for name in bars]
    # a logarithmic axis starts at the lowest point; on a linear one, from zero, two accuracies would be one line
    step = {"xAxisKey": "step", "scaleType": "log", "lineSmoothness": 0, "displayPoints": False}
    curves = [_chart("LINE", "curves", metricKey=name, **step) for name in lines]
    sections = [
        _section("results", "Results, means over the seeds", columns=4, height=225),
        _section("curves", "Learning curves, mean and range over the seeds", columns=4, height=296),
    ]
    group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": SIDE}]}
    return _charts(results + curves, sections) | {"groupBy": group, "useGroupedValuesInCharts": True}


def _sweep(varied: Sequence[str]) -> dict[str, Any]:
    charts = [_chart("BAR", "results", metricKey=name) for name in _SELECTION]
    lines = {"selectedParams": ["framework", *varied], "selectedMetrics": [*_SELECTION][:1], "showAllRuns": True}
    charts += [_chart("PARALLEL", "results", **lines)] if varied else []
    section = _section("results", "The best 20 by validation accuracy, means over the seeds", columns=2, height=360)
    return _charts(charts, [section]) | {"runsHiddenMode": _SHOWN_BARS}


def _charts(charts: Sequence[Mapping[str, Any]], sections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    # the sections that the UI would add, open, for the other metrics: folded here
    rest = [_section(name, name, display=False) for name in ("test", "time", "train", "validation", "System metrics")]
    return {
        "compareRunCharts": charts,
        "compareRunSections": [*sections, *rest],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "runListHidden": True,
    }


def _chart(kind: str, section: str, **settings: Any) -> dict[str, Any]:
    identity = {"uuid": f"{section}-{settings.get('metricKey', kind)}", "metricSectionId": section, "type": kind}
    return identity | {"runsCountToCompare": 10, "deleted": False, "isGenerated": False} | settings


def _section(uuid: str, name: str, *, display: bool = True, columns: int = 4, height: int = 310) -> dict[str, Any]:
    shape = {"display": display, "columns": columns, "cardHeight": height, "isReordered": True, "deleted": False}
    return {"uuid": uuid, "name": name} | shape
