"""An open MLflow run: write its parameters, metrics, tags, artifacts and models to its journal."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import numpy as np

from . import flavours
from .journal import Journal, local
from .mlflow_compat import sampled_system_metrics

_POINTS_PER_EVENT = 500
_NAMES_PER_EVENT = 100
DESCRIPTION_LENGTH: Final = 7000
"""Characters of a description: MLflow's limit on a tag is 8,000, and placeholders grow when they are filled in."""
_VALUE_LENGTH = 6000  # MLflow's limit on the value of a parameter

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Costs:
    """Seconds that tracking has taken from a process's own work so far."""

    seconds: float = 0.0
    """For writing journals and waiting for MLflow, without models."""
    model_seconds: float = 0.0
    """For saving models."""
    open_seconds: float = 0.0
    """For importing MLflow and opening the store."""


def _timed(method: Callable[Concatenate["Run", P], R]) -> Callable[Concatenate["Run", P], R]:
    def wrapper(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.perf_counter()
        try:
            return method(self, *args, **kwargs)
        finally:
            self._costs.seconds += time.perf_counter() - began

    return wrapper


class Run:
    """An open run. What a call logs is on disk when it returns, and in MLflow seconds later if that answers."""

    def __init__(self, costs: Costs, journal: Journal) -> None:
        self._costs, self.journal = costs, journal
        self._logged_steps: dict[str, set[int]] = {}
        """By metric, the steps that a continued run has already: they are not logged again."""
        self._last: dict[str, tuple[int, float, int]] = {}
        """By metric, (step, value, milliseconds since 1970) of the last point."""
        self._models: set[str] = set()
        for event, _ in journal.events():
            if event["event"] == "metrics":
                for name, values in event["values"].items():
                    end = event["step"] + len(values)
                    self._logged_steps.setdefault(name, set()).update(range(event["step"], end))
                    self._last[name] = (end - 1, values[-1], event["time"])
            elif event["event"] == "model":
                self._models.add(event["name"])

    @property
    def reference(self) -> str:
        """The run's id in MLflow; as long as MLflow has given none, a reference to its journal."""
        return self.journal.position.run_id or local(self.journal.uid)

    def next_step(self, prefix: str) -> int:
        """Return the last step of the metrics with that prefix, plus 1; 0 if there are none."""
        return max((last[0] for name, last in self._last.items() if name.startswith(prefix)), default=-1) + 1

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add a point at `step` to each metric in `values`; skip a metric that a continued run has at that step."""
        new = {name: [float(value)] for name, value in values.items() if step not in self._logged_steps.get(name, ())}
        now, names = milliseconds(), list(new)
        for start in range(0, len(names), _POINTS_PER_EVENT):
            part = {name: new[name] for name in names[start : start + _POINTS_PER_EVENT]}
            self.journal.append({"event": "metrics", "time": now, "step": step, "values": part})
        self._last |= {name: (step, value, now) for name, (value,) in new.items()}

    @_timed
    def log_series(self, values: Mapping[str, Sequence[float] | np.ndarray], first_step: int) -> None:
        """Add points to each metric at `first_step`, `first_step` + 1, ...; skip those that a continued run has."""
        now = milliseconds()
        for name, series in values.items():
            logged = self._logged_steps.get(name, ())
            new = [(step, float(value)) for step, value in enumerate(series, first_step) if step not in logged]
            for part in _consecutive(new):
                event = {"event": "metrics", "time": now, "step": part[0][0], "values": {name: [v for _, v in part]}}
                self.journal.append(event)
                self._last[name] = (*part[-1], now)

    @_timed
    def flush(self) -> None:
        """Flush the journal to the disk, so that it survives a power failure."""
        self.journal.to_disk()

    def end(self, status: str) -> None:
        """End the run. `status`: FINISHED, FAILED or KILLED."""
        self.journal.append({"event": "end", "time": milliseconds(), "status": status})
        self.flush()

    @_timed
    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log parameters. A nested mapping becomes dotted names; a value is cut at 6,000 characters, MLflow's limit."""
        self._add_named("params", {name: text_of(value)[:_VALUE_LENGTH] for name, value in flatten(values)})

    @_timed
    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; leave out those whose value is None."""
        self._add_named("tags", tags_of(values))

    @_timed
    def describe(self, markdown: str) -> None:
        """Set the run's description; placeholders in it (`delivery.RUN_ID`, `EXPERIMENT_ID`) are filled in.

        MLflow would cut a long one within a word, or a link. It is cut at the end of a line, and says so.
        """
        if len(markdown) > DESCRIPTION_LENGTH:
            markdown = markdown[:DESCRIPTION_LENGTH].rpartition("\n")[0] + "\n\n(cut: MLflow's limit)"
        self._add_named("tags", {"mlflow.note.content": markdown})

    @_timed
    def log_text(self, text: str, path: str) -> None:
        """Store a text as the artifact `path`."""
        self.journal.append({"event": "text", "time": milliseconds(), "text": text, "path": path})

    @_timed
    def log_file(self, source: Path, folder: str | None = None) -> None:
        """Store a copy of a file among the artifacts, in `folder`; None: at their root."""
        stored = self.journal.attach(source)
        self.journal.append({"event": "file", "time": milliseconds(), "stored": stored, "folder": folder})

    @_timed
    def log_dataset(self, *, name: str, fingerprint: str, context: str, source: Mapping[str, str]) -> None:
        """Log the data set of this run.

        `fingerprint`: at most 36 characters. `context`: what the data are for, such as `training`. `source`: tags that
        say where the data came from.
        """
        dataset = {"name": name, "digest": fingerprint, "context": context, "source": dict(source)}
        self.journal.append({"event": "dataset", "time": milliseconds(), **dataset})

    def show(
        self,
        *,
        current: Sequence[str] = (),
        report: bool = False,
        sweeps: Mapping[str, Sequence[str]] | None = None,
        trials: bool = False,
    ) -> None:
        """Update the experiment's saved views and its bar of links (see `views`).

        `current`: references of the runs that the view `curves` is to show. `report`: whether the bar is to link to
        this run's report. `sweeps`: a sweep's id to the parameters that it varies; each sweep gets a view.
        `trials`: the sweeps are searches.
        """
        content = {"current": list(current), "report": report, "sweeps": dict(sweeps or {}), "trials": trials}
        self.journal.append({"event": "views", "time": milliseconds(), **content})

    def log_model(
        self,
        flavour: str,
        network: Any,
        *,
        name: str,
        step: int,
        example: np.ndarray,
        classes: int,
        files: Sequence[Path],
        metrics: Sequence[str],
        note: str = "",
    ) -> str:
        """Store `network` as the MLflow LoggedModel `name`, in a format without pickle; return the name.

        A model that the run has already is not stored again. `flavour`: the module of MLflow that saves such networks,
        see `frameworks.Framework`. `step`: number of optimiser steps taken. `example`: a batch of at least two images,
        in the dtype and shape that the network takes. `files`: stored beside the network. `metrics`: names of the
        run's metrics whose last values belong to the model. `note`: its description, in Markdown.
        """
        if name in self._models:
            return name
        began = time.perf_counter()
        folder = self.journal.attach_folder("model")
        flavours.save(flavour, network, folder, example=example, classes=classes, files=files)
        points = [(key, value, timestamp, at) for key in metrics for at, value, timestamp in [self._last[key]]]
        stored = str(folder.relative_to(self.journal.folder))
        event = {
            "event": "model",
            "time": milliseconds(),
            "stored": stored,
            "name": name,
            "step": step,
            "points": points,
            "note": note,
        }
        self.journal.append(event)
        self._models.add(name)
        self._costs.model_seconds += time.perf_counter() - began
        return name

    @contextmanager
    def system_metrics(self, seconds: float | None) -> Iterator[None]:
        """Log CPU, memory, disk, network and GPU use as `system/*` every `seconds`; None: log nothing."""
        if seconds is None:
            yield
            return
        with sampled_system_metrics(self.log_metrics, seconds, first_step=self.next_step("system/")):
            yield

    def _add_named(self, event: str, values: Mapping[str, str]) -> None:
        names = list(values)
        for start in range(0, len(names), _NAMES_PER_EVENT):
            part = {name: values[name] for name in names[start : start + _NAMES_PER_EVENT]}
            self.journal.append({"event": event, "time": milliseconds(), "values": part})


def milliseconds() -> int:
    """Return the time in milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


def _consecutive(points: Sequence[tuple[int, float]]) -> Iterator[list[tuple[int, float]]]:
    """Split points, (step, value), into series of consecutive steps, none longer than an event may be."""
    series: list[tuple[int, float]] = []
    for point in points:
        if series and (point[0] != series[-1][0] + 1 or len(series) == _POINTS_PER_EVENT):
            yield series
            series = []
        series.append(point)
    if series:
        yield series


def tags_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as MLflow takes them: strings of at most 6,000 characters, without those whose value is None."""
    return {name: text_of(value)[:_VALUE_LENGTH] for name, value in values.items() if value is not None}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names with their values: `("train.epochs", 3)` of `{"train": {"epochs": 3}}`. Keep lists whole."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def text_of(value: Any) -> str:
    """Return a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
