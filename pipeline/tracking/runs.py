"""MLflow runs: parameters, metrics, tags, artifacts and models of one run, written in batches."""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from .tracker import Tracker

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

        params = [Param(name, text_of(value)[:_VALUE_LENGTH]) for name, value in flatten(values)]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self.tracker.client.log_batch(self.id, params=params[start : start + _PARAMS_PER_CALL])

    @_timed
    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Write tags; None is left out."""
        from mlflow.entities import RunTag

        tags = [RunTag(name, text_of(value)[:_VALUE_LENGTH]) for name, value in values.items() if value is not None]
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
