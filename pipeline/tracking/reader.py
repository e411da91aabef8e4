"""Query MLflow for runs and their artifacts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError
from . import views
from .lifecycle import active_run
from .lookup import artifact, runs_in
from .tracker import Tracker


@dataclass(frozen=True)
class StoredRun:
    """A run as stored in MLflow."""

    id: str
    name: str
    tags: Mapping[str, str]


def find_runs(tracker: Tracker, condition: str) -> list[StoredRun]:
    """Return the finished runs of the experiment that match `condition`, the newest first.

    `condition`: a filter of MLflow's `search_runs`. Raises `UserError` if it is malformed, or if the store does not
    answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = runs_in(tracker.client, [tracker.experiment_id], f"attributes.status = 'FINISHED' and {condition}")
        return [StoredRun(run.info.run_id, run.info.run_name, dict(run.data.tags)) for run in found]
    except MlflowException as error:
        raise UserError(
            f"{condition}: MLflow does not understand this filter: {error.message}; an example of one: "
            "\"params.`train.optimizer.name` = 'adam' and tags.framework = 'pytorch'\""
        ) from error


def has_run(tracker: Tracker, run_id: str) -> bool:
    """Whether the store has a run with this id that is not deleted. Raises what MLflow raises."""
    return active_run(tracker.client, run_id) is not None


def described(tracker: Tracker, fingerprint: str) -> StoredRun | None:
    """Return the newest run that holds the page about the data with this fingerprint; None if there is none."""
    runs = find_runs(tracker, f"{views.DATA} and tags.`data.fingerprint` = '{fingerprint}'")
    return runs[0] if runs else None


def fetch(tracker: Tracker, run: StoredRun, path: str, folder: Path) -> Path:
    """Copy the artifact `path` of a run into `folder`; return the copy. Raises `UserError` if there is no such one."""
    found = artifact(tracker.client, run.id, path, folder)
    if found is None:
        raise UserError(
            f"run {run.name} ({run.id}): has no {path} in MLflow: it was not evaluated, or by an earlier version of "
            "this code; train it again"
        )
    return found
