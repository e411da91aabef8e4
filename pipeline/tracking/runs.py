"""MLflow runs: parameters, metrics, tags, artifacts and models of one run, written in batches."""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from ..config import TrackingConfig
from ..errors import UserError
from . import views
from .store import artifact_root, ensure_store

_FLUSH_SECONDS = 3.0  # how long a metric may wait: MLflow's cost is per call, 8 to 20 ms, not per metric
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_VALUE_LENGTH = 6000

P = ParamSpec("P")
R = TypeVar("R")


def _timed(method: Callable[Concatenate["Run", P], R]) -> Callable[Concatenate["Run", P], R]:
    def wrapper(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.perf_counter()
        try:
            return method(self, *args, **kwargs)
        finally:
            self.tracker.seconds += time.perf_counter() - began

    return wrapper


class Run:
    """An open MLflow run. Metrics wait in memory for at most a few seconds; everything else is written at once."""

    def __init__(self, tracker: "Tracker", run_id: str) -> None:
        self.tracker = tracker
        self.id = run_id
        self._metrics: list[Any] = []
        self._last: dict[str, Any] = {}
        self._flushed = time.monotonic()

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each of the named metrics."""
        self.log_series({name: [value] for name, value in values.items()}, first_step=step)

    def log_series(self, values: Mapping[str, Sequence[float] | np.ndarray], first_step: int) -> None:
        """Add a point for each value, at `first_step`, `first_step` + 1, and so on."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, series in values.items():
            points = [Metric(name, float(v), now, first_step + i) for i, v in enumerate(series)]
            self._metrics += points
            self._last[name] = points[-1]
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    @_timed
    def flush(self) -> None:
        """Write the metrics that wait."""
        while self._metrics:
            batch = self._metrics[:_METRICS_PER_CALL]
            self.tracker.client.log_batch(self.id, metrics=batch)
            del self._metrics[: len(batch)]
        self._flushed = time.monotonic()

    @_timed
    def log_params(self, values: Mapping[str, Any]) -> None:
        """Write parameters; nested mappings become dotted names, long values are cut at MLflow's limit."""
        from mlflow.entities import Param

        params = [Param(name, _text(value)[:_VALUE_LENGTH]) for name, value in flatten(values)]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self.tracker.client.log_batch(self.id, params=params[start : start + _PARAMS_PER_CALL])

    @_timed
    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Write tags; None is left out."""
        from mlflow.entities import RunTag

        tags = [RunTag(name, _text(value)[:_VALUE_LENGTH]) for name, value in values.items() if value is not None]
        self.tracker.client.log_batch(self.id, tags=tags)

    @_timed
    def describe(self, markdown: str) -> None:
        """Set the text that the run's page opens with."""
        self.tracker.client.set_tag(self.id, "mlflow.note.content", markdown)

    @_timed
    def log_text(self, text: str, path: str) -> None:
        """Store a text as the artifact `path`."""
        self.tracker.client.log_text(self.id, text, path)

    @_timed
    def log_file(self, source: Path, folder: str | None = None) -> None:
        """Store a file among the artifacts."""
        self.tracker.client.log_artifact(self.id, str(source), folder)

    @_timed
    def log_dataset(self, *, name: str, fingerprint: str, context: str, source: Mapping[str, str]) -> None:
        """Name the data of this run: `fingerprint` is at most 36 characters, `source` says where they came from."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        dataset = MetaDataset(CodeDatasetSource(tags=dict(source)), name=name, digest=fingerprint)
        inputs = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self.tracker.client.log_inputs(self.id, [inputs])

    def log_model(
        self,
        framework: str,
        network: Any,
        *,
        name: str,
        step: int,
        example: np.ndarray,
        classes: int,
        files: Sequence[Path],
        metrics: Sequence[str],
    ) -> str:
        """Store `network` as an MLflow LoggedModel in a format without pickle, and return its id.

        `example`: a batch of at least two, in the dtype and shape that the network takes. `files`: kept beside it.
        `step`: optimiser steps taken; MLflow shows with the model every metric that has a point at just this step, so
        it is one that none has. `metrics`: those whose last values belong to the model.
        """
        import importlib

        from mlflow.entities import Metric
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        began = time.perf_counter()
        flavor = importlib.import_module(f"mlflow.{framework}")
        signature = ModelSignature(
            Schema(
                [
                    TensorSpec(
                        example.dtype,
                        (-1, *example.shape[1:]),
                        "images" if framework == "tensorflow" else None,
                    )
                ]
            ),
            Schema([TensorSpec(example.dtype, (-1, classes))]),
        )
        # torch.export traces the example, and would fix its batch size if that were one
        format_options = {"serialization_format": "pt2", "input_example": example} if framework == "pytorch" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            info = flavor.log_model(
                network,
                name=name,
                step=step,
                signature=signature,
                pip_requirements=flavor.get_default_pip_requirements(),  # given: inferring them takes 10 s and more
                extra_files=[str(path) for path in files],
                **format_options,
            )
        linked = [self._last[key] for key in metrics]
        points = [Metric(m.key, m.value, m.timestamp, m.step, model_id=info.model_id, run_id=self.id) for m in linked]
        self.tracker.client.log_batch(self.id, metrics=points)
        self.tracker.model_seconds += time.perf_counter() - began
        return str(info.model_id)

    @contextmanager
    def system_metrics(self, seconds: float | None) -> Iterator[None]:
        """Sample CPU, memory, disk, network and GPU use every so many seconds, under `system/`."""
        if seconds is None:
            yield
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(self.id, sampling_interval=seconds, tracking_uri=self.tracker.uri)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()


class Tracker:
    """A process's door to MLflow. Raises `UserError` where the store does not answer."""

    def __init__(self, tracking: TrackingConfig, root: Path) -> None:
        began = time.perf_counter()
        self.uri = ensure_store(root)
        import logging

        logging.getLogger("alembic").setLevel(logging.WARNING)
        import mlflow

        self.seconds = 0.0
        """Spent in writing to MLflow so far, models apart."""
        self.model_seconds = 0.0
        mlflow.set_tracking_uri(self.uri)
        self.client = mlflow.MlflowClient(self.uri)
        try:
            self.experiment_id = self._experiment(tracking.experiment, artifact_root(root))
        except Exception as error:
            raise UserError(f"MLflow store {self.uri}: does not answer: {error}") from error
        self.save_views()
        self.open_seconds = time.perf_counter() - began
        """Spent in importing MLflow and opening the store."""

    @contextmanager
    def run(self, name: str, *, parent: str | None = None, tags: Mapping[str, Any]) -> Iterator[Run]:
        """Open a run; it ends FINISHED, KILLED when interrupted, or FAILED with the error as its tag `error`."""
        import mlflow

        began = time.perf_counter()
        active = mlflow.start_run(
            experiment_id=self.experiment_id,
            run_name=name,
            nested=True,
            parent_run_id=parent,
            tags={key: _text(value) for key, value in tags.items() if value is not None},
            log_system_metrics=False,
        )
        run = Run(self, active.info.run_id)
        self.seconds += time.perf_counter() - began
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit) as error:
            status = "KILLED"
            run.set_tags({"error": f"{type(error).__name__} {error}".strip()})
            raise
        except BaseException as error:
            run.set_tags({"error": f"{type(error).__name__}: {error}"})
            raise
        finally:
            run.flush()
            began = time.perf_counter()
            mlflow.end_run(status)
            self.seconds += time.perf_counter() - began

    def add_results(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        *,
        model_id: str | None = None,
        files: Sequence[Path] = (),
    ) -> bool:
        """Add numbers and files (under `evaluate/`) to a run that has ended, and to its model, without reopening it.

        Returns False where this store has no such run: it was restored from a cache of DVC.
        """
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        points = [
            Metric(name, float(value), now, 0, model_id=model_id, run_id=run_id) for name, value in metrics.items()
        ]
        try:
            self.client.log_batch(run_id, metrics=points)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        for path in files:
            self.client.log_artifact(run_id, str(path), "evaluate")
        return True

    def save_views(
        self,
        *,
        current: Sequence[str] = (),
        report: str | None = None,
        sweep: str | None = None,
        varied: Sequence[str] = (),
    ) -> None:
        """Keep the experiment's saved views and its bar of links (see `views`) up to date.

        `current`: the runs that `curves` is to show, `report`: the run that holds their report.
        """
        wanted = views.views(current, {sweep: varied} if sweep else {})
        wanted[views.NOTE] = views.note(self.experiment_id, report)
        try:
            known = self.client.get_experiment(self.experiment_id).tags
            for key, value in wanted.items():
                kept = key in known and (
                    (key == views.CURVES and not current)
                    or (key == views.NOTE and (not report or not known[key].startswith("[Leaderboard]")))
                )
                if not kept and known.get(key) != value:
                    self.client.set_experiment_tag(self.experiment_id, key, value)
        except Exception as error:  # how the UI stores them is MLflow's own business: never in the way of a run
            warnings.warn(f"saved views of the MLflow UI: {error}", stacklevel=2)

    def link(self, path: str) -> str:
        """The address of a page of the UI (see `views`): on the server, or on the one that `make ui` starts."""
        server = (
            self.uri.rstrip("/") if self.uri.startswith("http") else f"http://127.0.0.1:{os.environ.get('PORT', 5000)}"
        )
        return f"{server}{path}"

    def _experiment(self, name: str, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise UserError(
                f"tracking.experiment = {name}: is deleted in {self.uri}; restore it or choose another name"
            )
        return str(found.experiment_id)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"train": {"epochs": 3}}` to `("train.epochs", 3)`; lists stay whole."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
