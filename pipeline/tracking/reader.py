"""What MLflow holds, read back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError
from . import views
from .tracker import Tracker


@dataclass(frozen=True)
class StoredRun:
    """A run as MLflow has it."""

    id: str
    name: str
    tags: Mapping[str, str]


def find_runs(tracker: Tracker, condition: str) -> list[StoredRun]:
    """The finished runs of the experiment that match, the newest first. Raises `UserError` for a bad filter."""
    from mlflow.exceptions import MlflowException

    found: list[StoredRun] = []
    token = None
    while True:
        try:
            page = tracker.client.search_runs(
                [tracker.experiment_id],
                f"attributes.status = 'FINISHED' and {condition}",
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
        except MlflowException as error:
            raise UserError(
                f"{condition}: not a filter that MLflow understands: {error.message}; such as "
                "\"params.`train.optimizer.name` = 'adam' and tags.framework = 'pytorch'\""
            ) from error
        found += [StoredRun(run.info.run_id, run.info.run_name, dict(run.data.tags)) for run in page]
        token = page.token
        if not token:
            return found


def described(tracker: Tracker, fingerprint: str) -> StoredRun | None:
    """The run that holds the page about the data with this fingerprint, where there is one."""
    found = find_runs(tracker, f"{views.DATA} and tags.`data.fingerprint` = '{fingerprint}'")
    return found[0] if found else None


def fetch(tracker: Tracker, run: StoredRun, path: str, folder: Path) -> Path:
    """Copy an artifact into `folder`. Raises `UserError` where the run has none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        return Path(tracker.client.download_artifacts(run.id, path, str(folder)))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"run {run.name} ({run.id}) has no {path} in MLflow: it was not evaluated, or by an earlier version; "
            "train it again"
        ) from error
