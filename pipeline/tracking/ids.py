"""MLflow's ids of what journals name otherwise: runs by their journal, models by their name."""

from pathlib import Path
from typing import Any

from .journal import Journal, folder_of, is_local, position_of, successor_of, uid_of
from .lifecycle import active_model


class NotYetError(Exception):
    """An event needs a run that the store does not have: send that run's journal first, or this one again."""


class Ids:
    """The ids in one store, looked up once each."""

    def __init__(self, client: Any, root: Path) -> None:
        """`client`: an `MlflowClient`. `root`: see `core.paths.main_root`."""
        self._client, self._root = client, root
        self._runs: dict[str, str] = {}
        """Ids by the uid of the run's journal."""
        self._models: dict[str, bool] = {}
        """Whether the store has a model, by its id."""

    def remember(self, uid: str, run_id: str) -> None:
        """Note the id of the run that was made from the journal `uid`."""
        self._runs[uid] = run_id

    def forget(self, uid: str) -> None:
        """Note that this journal's run is deleted."""
        self._runs.pop(uid, None)

    def find_model(self, journal: Journal, name: str) -> Any:
        """Return the model of this name that the journal's run has in the store; None if it has none."""
        position = journal.position
        models = self._client.search_logged_models([position.experiment_id], f"source_run_id = '{position.run_id}'")
        return next((model for model in models if model.name == name), None)  # no name in a filter: it may hold quotes

    def of_model(self, journal: Journal, reference: str) -> str | None:
        """Return a model's id; None if the store lacks it, or the run has none of that name.

        `reference`: an id, or a model's name.
        """
        if reference.startswith("m-"):
            if reference not in self._models:
                self._models[reference] = active_model(self._client, reference) is not None
            return reference if self._models[reference] else None
        if reference not in journal.position.models and (model := self.find_model(journal, reference)):
            journal.position.models[reference] = str(model.model_id)
        return journal.position.models.get(reference)

    def of_run(self, reference: str, experiment_id: str) -> str | None:
        """Return a run's id; None if neither the store nor a journal has the run.

        `reference`: an id, or a journal's (see `journal.local`). Raises `NotYetError` if the journal is not sent yet.
        """
        if not is_local(reference):
            if folder := successor_of(self._root, reference):
                return position_of(folder).run_id or reference
            return reference
        uid = uid_of(reference)
        if uid not in self._runs:
            if run_id := self.search(uid, experiment_id):
                self._runs[uid] = run_id
            elif folder_of(self._root, uid):
                raise NotYetError(f"the store does not have the run of the journal {uid} yet")
        return self._runs.get(uid)

    def search(self, uid: str, experiment_id: str) -> str | None:
        """Return the id of the run that was made from the journal `uid`; None if the store has none."""
        runs = self._client.search_runs([experiment_id], f"tags.journal = '{uid}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None
