"""A process's door to MLflow: the store, the experiment with its saved views, and runs."""

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import TrackingConfig
from ..errors import UserError
from . import views
from .runs import Run, text_of
from .store import artifact_root, ensure_store


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
            tags={key: text_of(value) for key, value in tags.items() if value is not None},
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
