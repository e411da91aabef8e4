"""MLflow runs: parameters, metrics, tags, artifacts and models of one run, written to its journal."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from . import flavours
from .journal import Journal, local
from .mlflow_compat import sampled_system_metrics

_POINTS_PER_EVENT = 500
_NAMES_PER_EVENT = 100
_VALUE_LENGTH = 6000

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Costs:
    """What tracking costs a process: seconds of its own that it waited."""

    seconds: float = 0.0
    """In writing journals and in waiting for MLflow so far, models apart."""
    model_seconds: float = 0.0
    open_seconds: float = 0.0
    """In importing MLflow and opening the store."""


def _timed(method: Callable[Concatenate["Run", P], R]) -> Callable[Concatenate["Run", P], R]:
    def wrapper(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.perf_counter()
        try:
            return method(self, *args, **kwargs)
        finally:
            self._costs.seconds += time.perf_counter() - began

    return wrapper


class Run:
    """An open run. All is on disk when a call returns, and in MLflow seconds later, where that answers."""

    def __init__(self, costs: Costs, journal: Journal) -> None:
        self._costs, self.journal = costs, journal
        self._there: dict[str, set[int]] = {}
        """Steps of the points that a run which goes on had before: these are not added again."""
        self._last: dict[str, tuple[int, float, int]] = {}
        """Step, value and time of the last point, by name."""
        self._models: set[str] = set()
        for event, _ in journal.events():
            if event["event"] == "metrics":
                for name, values in event["values"].items():
                    end = event["step"] + len(values)
                    self._there.setdefault(name, set()).update(range(event["step"], end))
                    self._last[name] = (end - 1, values[-1], event["time"])
            elif event["event"] == "model":
                self._models.add(event["name"])

    @property
    def reference(self) -> str:
        """The run's id in MLflow, or, as long as that has not answered, its journal's."""
        return self.journal.position.run_id or local(self.journal.uid)

    def next_step(self, prefix: str) -> int:
        """One more than the last step of the metrics with that prefix."""
        return max((last[0] for name, last in self._last.items() if name.startswith(prefix)), default=-1) + 1

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each of the named metrics, but where there is one at that step."""
        new = {name: [float(value)] for name, value in values.items() if step not in self._there.get(name, ())}
        now, names = milliseconds(), list(new)
        for start in range(0, len(names), _POINTS_PER_EVENT):
            part = {name: new[name] for name in names[start : start + _POINTS_PER_EVENT]}
            self.journal.append({"event": "metrics", "time": now, "step": step, "values": part})
        self._last |= {name: (step, value, now) for name, (value,) in new.items()}

    @_timed
    def log_series(self, values: Mapping[str, Sequence[float] | np.ndarray], first_step: int) -> None:
        """Add a point for each value, at `first_step`, `first_step` + 1, and so on, but where there is one."""
        now = milliseconds()
        for name, series in values.items():
            there = self._there.get(name, ())
            new = [(first_step + i, float(value)) for i, value in enumerate(series) if first_step + i not in there]
            for piece in _pieces(new):
                event = {"event": "metrics", "time": now, "step": piece[0][0], "values": {name: [v for _, v in piece]}}
                self.journal.append(event)
                self._last[name] = (*piece[-1], now)

    @_timed
    def flush(self) -> None:
        """What was added survives a failure of the power."""
        self.journal.to_disk()

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self.journal.append({"event": "end", "time": milliseconds(), "status": status})
        self.flush()

    @_timed
    def log_params(self, values: Mapping[str, Any]) -> None:
        """Write parameters; nested mappings become dotted names, long values are cut at MLflow's limit."""
        self._add_named("params", {name: text_of(value)[:_VALUE_LENGTH] for name, value in flatten(values)})

    @_timed
    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Write tags; None is left out."""
        self._add_named("tags", tags_of(values))

    @_timed
    def describe(self, markdown: str) -> None:
        """Set the text that the run's page opens with; `RUN_ID` and `EXPERIMENT_ID` in it are filled in."""
        self._add_named("tags", {"mlflow.note.content": markdown})

    @_timed
    def log_text(self, text: str, path: str) -> None:
        """Store a text as the artifact `path`."""
        self.journal.append({"event": "text", "time": milliseconds(), "text": text, "path": path})

    @_timed
    def log_file(self, source: Path, folder: str | None = None) -> None:
        """Store a file among the artifacts."""
        stored = self.journal.attach(source)
        self.journal.append({"event": "file", "time": milliseconds(), "stored": stored, "folder": folder})

    @_timed
    def log_dataset(self, *, name: str, fingerprint: str, context: str, source: Mapping[str, str]) -> None:
        """Name the data of this run: `fingerprint` is at most 36 characters, `source` says where they came from."""
        facts = {"name": name, "digest": fingerprint, "context": context, "source": dict(source)}
        self.journal.append({"event": "dataset", "time": milliseconds(), **facts})

    def show(
        self,
        *,
        current: Sequence[str] = (),
        report: bool = False,
        sweeps: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Have the experiment's saved views and bar of links (see `views`) lead here.

        `current`: references of the runs that `curves` is to show. `report`: whether this run holds their report.
        `sweeps`: of a sweep's id the parameters that it varies.
        """
        facts = {"current": list(current), "report": report, "sweeps": dict(sweeps or {})}
        self.journal.append({"event": "views", "time": milliseconds(), **facts})

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
    ) -> str:
        """Store `network` as an MLflow LoggedModel of that name, in a format without pickle.

        `flavour`: the module of MLflow that saves such networks, see `frameworks.Framework`.
        `example`: a batch of at least two, in the dtype and shape that the network takes. `files`: kept beside it.
        `step`: optimiser steps taken. `metrics`: those whose last values belong to the model. Returns the name.
        """
        if name in self._models:
            return name
        began = time.perf_counter()
        folder = self.journal.attach_folder("model")
        flavours.save(flavour, network, folder, example=example, classes=classes, files=files)
        points = [(key, value, when, at) for key in metrics for at, value, when in [self._last[key]]]
        stored = str(folder.relative_to(self.journal.folder))
        event = {
            "event": "model",
            "time": milliseconds(),
            "stored": stored,
            "name": name,
            "step": step,
            "points": points,
        }
        self.journal.append(event)
        self._models.add(name)
        self._costs.model_seconds += time.perf_counter() - began
        return name

    @contextmanager
    def system_metrics(self, seconds: float | None) -> Iterator[None]:
        """Sample CPU, memory, disk, network and GPU use every so many seconds, under `system/`."""
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
    """Milliseconds, as MLflow counts them."""
    return int(time.time() * 1000)


def _pieces(points: Sequence[tuple[int, float]]) -> Iterator[list[tuple[int, float]]]:
    """Pieces of points whose steps follow one another, none longer than an event may be."""
    piece: list[tuple[int, float]] = []
    for point in points:
        if piece and (point[0] != piece[-1][0] + 1 or len(piece) == _POINTS_PER_EVENT):
            yield piece
            piece = []
        piece.append(point)
    if piece:
        yield piece


def tags_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow takes them; None is left out."""
    return {name: text_of(value)[:_VALUE_LENGTH] for name, value in values.items() if value is not None}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"train": {"epochs": 3}}` to `("train.epochs", 3)`; lists stay whole."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def text_of(value: Any) -> str:
    """A string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
