"""MLflow experiments: find or create one, and keep its saved views and its bar of links up to date."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any, Final

from ..core.redaction import redacted
from . import views
from .relocation import FOLDER, path_of

_OF_THE_LATEST: Final = (views.CURVES, views.NOTE, views.TAG + views.RANKING, views.TAG + views.ALL_SEEDS)
"""Tags that show what was trained or compared last: a run that knows of nothing newer leaves them."""


class DeletedExperimentError(Exception):
    """The experiment is deleted, but still in the store."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the experiment {name} is deleted; restore it in MLflow")
        self.name = name


def find_or_create(client: Any, name: str, artifact_location: str | None) -> str:
    """Return the id of the experiment `name`; create the experiment if the store has none.

    `client`: an `MlflowClient`. `artifact_location`: a URI; None: the server's default.
    Raises `DeletedExperimentError`, NotADirectoryError if its artifacts belong into a folder that is not on this
    machine, or what MLflow raises.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            client.create_experiment(name, artifact_location=artifact_location)
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)
    _require_place(name, experiment.artifact_location)
    if experiment.lifecycle_stage == "deleted":
        raise DeletedExperimentError(name)
    return str(experiment.experiment_id)


def _require_place(name: str, location: str) -> None:
    """Refuse a folder that is not of this machine: MLflow's client would make it here, and nobody would look there."""
    path = path_of(location)
    if path and not (path.parent if path.name == FOLDER else path.parent.parent).exists():
        advice = "bring that folder back, log to a server that keeps artifacts, or choose another tracking.experiment"
        raise NotADirectoryError(f"the artifacts of {name} belong into {path}, which is not on this machine: {advice}")


def update_views(client: Any, experiment_id: str, tags: Mapping[str, str], replacing: Collection[str] = ()) -> None:
    """Write the experiment's tags that hold the saved views and the bar of links (see `views`).

    `tags`: take precedence over the default views and links. `replacing`: those of `tags` that are of something newer
    than the stored ones: of current runs, a report, the data set that is trained on. Any failure is a warning: how the
    UI stores views is MLflow's own business, and must not stop a run.
    """
    wanted = {**views.views(), views.NOTE: views.note(experiment_id), **tags}
    try:
        stored = client.get_experiment(experiment_id).tags
        for key, value in wanted.items():
            if stored.get(key) != value and _may_write(key, stored, replacing):
                _set_tag(client, experiment_id, key, value, before=stored.get(key))
    except Exception as error:
        warnings.warn(redacted(f"saved views of the MLflow UI: {error}"), stacklevel=2)


def _set_tag(client: Any, experiment_id: str, key: str, value: str, before: str | None) -> None:
    """Set a tag; again if that failed, unless another process has set it meanwhile, which is why it does fail."""
    try:
        client.set_experiment_tag(experiment_id, key, value)
    except Exception:
        if client.get_experiment(experiment_id).tags.get(key) == before:
            client.set_experiment_tag(experiment_id, key, value)


def _may_write(key: str, stored: Mapping[str, str], replacing: Collection[str]) -> bool:
    """Whether a tag may be written over: never a description that a person wrote in place of the bar of links."""
    if key not in stored or key not in _OF_THE_LATEST:
        return True
    return key in replacing and (key != views.NOTE or stored[key].startswith("[Leaderboard]"))
