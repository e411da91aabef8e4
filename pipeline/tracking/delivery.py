"""What a journal holds, brought to MLflow: sent again after a crash between sending and noting it, it changes nothing.

MLflow's SQL stores key a metric by run, name, time, step and value (and parameters, tags and artifacts by name), so a
second sending of a point adds no row; times are therefore those of the event. Runs are found again by their tag
`journal`, models by name and run.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from . import mlflow_compat, views
from .journal import Journal, Position, folder_of, is_local, uid_of
from .store import artifact_root, first_connection, store_uri, unreachable_reason

RUN_ID: Final = "{run_id}"
"""Stands for the run's id in a description, which is written before MLflow has given one."""
EXPERIMENT_ID: Final = "{experiment_id}"
_POINTS_PER_CALL: Final = 1000
_NAMES_PER_CALL: Final = 100  # MLflow's limit on parameters and on tags
_NEVER: Final = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS")
_BATCHED: Final = ("metrics", "params", "tags")


class NotYetError(Exception):
    """What an event refers to is in another journal, which comes first."""


class Delivery:
    """The way of journals to one store. Whatever fails is raised; what was acknowledged before that stays so."""

    def __init__(self, client: Any, store: str, root: Path) -> None:
        """`store`: see `store.place_of`."""
        self.client, self.store, self._root = client, store, root
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, str] = {}
        self._there: dict[str, set[tuple[str, int, float]]] = {}
        """Of an adopted run, by journal: the points that it has already."""
        self.refused: list[str] = []
        """What this store will never take, and why."""

    def send(self, journal: Journal) -> None:
        """Bring what it lacks to the store."""
        from mlflow.exceptions import MlflowException

        position = journal.position
        if position.store != self.store:  # another one than before: it gets all of it
            journal.position = position = Position(store=self.store)
        for batch, end in _batches(journal.events(position.offset)):
            try:
                self._apply(journal, batch)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" and position.offset:  # another store at this address
                    journal.position = Position(store=self.store)
                    journal.acknowledge()
                    raise NotYetError("the store no longer has the run: all of it is sent again") from error
                if error.error_code not in _NEVER:
                    raise
                self._one_by_one(journal, batch)
            position.offset = end
            journal.acknowledge()

    def experiment(self, name: str) -> str:
        """The id of the experiment, which is created where there is none, with its saved views."""
        from mlflow.exceptions import MlflowException

        if name in self._experiments:
            return self._experiments[name]
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                self.client.create_experiment(name, artifact_location=artifact_root(store_uri(self._root, self.store)))
            except MlflowException as error:  # another process was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            raise DeletedExperimentError(name)
        self._experiments[name] = str(found.experiment_id)
        self._show(self._experiments[name], {})
        return self._experiments[name]

    def _one_by_one(self, journal: Journal, batch: list[dict[str, Any]]) -> None:
        from mlflow.exceptions import MlflowException

        for event in batch:
            try:
                self._apply(journal, [event])
            except MlflowException as error:
                if error.error_code not in _NEVER:
                    raise
                journal.refuse(event, str(error))
                self.refused.append(f"{journal.folder / 'refused.jsonl'}: {event['event']}: {error.message}")

    def _apply(self, journal: Journal, batch: list[dict[str, Any]]) -> None:
        event = batch[0]
        if journal.position.run_id is None and event["event"] not in ("begin", "adopt"):
            return
        if event["event"] in _BATCHED:
            self._log_batch(journal, batch)
        else:
            getattr(self, f"_on_{event['event']}")(journal, event)

    def _log_batch(self, journal: Journal, batch: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id, metrics, params, tags = journal.position.run_id, [], [], []
        for event in batch:
            if event["event"] == "metrics":
                model = event.get("model")
                model_id = self._model_id(journal, model) if model else None
                there = self._there.get(journal.uid, ())
                for name, values in event["values"].items():
                    for step, value in enumerate(values, event["step"]):
                        if (name, step, value) not in there:
                            metrics.append(Metric(name, value, event["time"], step, model_id=model_id, run_id=run_id))
            elif event["event"] == "params":
                params += [Param(name, value) for name, value in event["values"].items()]
            else:
                tags += [RunTag(name, self._filled(journal, value)) for name, value in event["values"].items()]
        self.client.log_batch(run_id, metrics=metrics, params=params, tags=tags)

    def _on_begin(self, journal: Journal, event: Mapping[str, Any]) -> None:
        position = journal.position
        position.experiment_id = self.experiment(event["experiment"])
        found = self._find(journal.uid, position.experiment_id) if position.asked else None
        if found is None:
            parent = self._run_id(event["parent"], position.experiment_id) if event["parent"] else None
            position.asked = True
            journal.acknowledge()
            tags = event["tags"] | {"journal": journal.uid} | ({"mlflow.parentRunId": parent} if parent else {})
            run = self.client.create_run(position.experiment_id, event["time"], tags, event["name"])
            found = run.info.run_id
        position.run_id = self._runs[journal.uid] = found

    def _on_adopt(self, journal: Journal, event: Mapping[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        position, reference = journal.position, event["reference"]
        position.experiment_id = self.experiment(event["experiment"])
        try:
            found = self._run_id(reference, position.experiment_id)
            if found:
                self._there[journal.uid] = mlflow_compat.latest_points(self.client.get_run(found))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            found = None
        if found or not event["name"]:  # without a name, it is of no use elsewhere
            position.run_id = found
        else:  # its models came from a cache of DVC: the run that trained them is in another store
            self._on_begin(journal, event)

    def _on_resume(self, journal: Journal, _: Mapping[str, Any]) -> None:
        run_id = journal.position.run_id
        self.client.update_run(run_id, status="RUNNING")
        if "error" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "error")

    def _on_end(self, journal: Journal, event: Mapping[str, Any]) -> None:
        if event["status"]:  # none: somebody else's run
            end = max(event["time"], journal.begin["time"])  # a clock can be set back
            self.client.set_terminated(journal.position.run_id, event["status"], end)

    def _on_text(self, journal: Journal, event: Mapping[str, Any]) -> None:
        self.client.log_text(journal.position.run_id, event["text"], event["path"])

    def _on_file(self, journal: Journal, event: Mapping[str, Any]) -> None:
        self.client.log_artifact(journal.position.run_id, str(_stored(journal, event)), event["folder"])

    def _on_dataset(self, journal: Journal, event: Mapping[str, Any]) -> None:
        data = mlflow_compat.dataset_input(event["name"], event["digest"], event["source"], event["context"])
        self.client.log_inputs(journal.position.run_id, [data])

    def _on_views(self, journal: Journal, event: Mapping[str, Any]) -> None:
        position = journal.position
        assert position.experiment_id
        current = [self._run_id(reference, position.experiment_id) for reference in event["current"]]
        wanted = views.views([run for run in current if run], event["sweeps"])
        wanted[views.NOTE] = views.note(position.experiment_id, position.run_id if event["report"] else None)
        self._show(position.experiment_id, wanted, current=bool(current), report=event["report"])

    def _on_model(self, journal: Journal, event: Mapping[str, Any]) -> None:
        from mlflow.entities import LoggedModelOutput, Metric

        run_id, folder = journal.position.run_id, _stored(journal, event)
        run = self.client.get_run(run_id)
        model = self._find_model(journal, event["name"]) or self.client.create_logged_model(
            journal.position.experiment_id, event["name"], run_id, params=dict(run.data.params)
        )
        mlflow_compat.assign_model(folder, model, run_id)
        self.client.log_model_artifacts(model.model_id, str(folder))
        outputs = run.outputs.model_outputs if run.outputs else []
        if model.model_id not in {output.model_id for output in outputs}:
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, event["step"])])
        points = [Metric(*point, model_id=model.model_id, run_id=run_id) for point in event["points"]]
        self.client.log_batch(run_id, metrics=points)
        self.client.finalize_logged_model(model.model_id, "READY")
        journal.position.models[event["name"]] = str(model.model_id)

    def _find_model(self, journal: Journal, name: str) -> Any:
        position = journal.position
        condition = f"name = '{name}' AND source_run_id = '{position.run_id}'"
        return next(iter(self.client.search_logged_models([position.experiment_id], condition)), None)

    def _model_id(self, journal: Journal, reference: str) -> str | None:
        """`reference`: an id, or the name of a model of this run; None where there is none of that name."""
        if reference.startswith("m-"):
            return reference
        if reference not in journal.position.models and (model := self._find_model(journal, reference)):
            journal.position.models[reference] = str(model.model_id)
        return journal.position.models.get(reference)

    def _run_id(self, reference: str, experiment_id: str) -> str | None:
        """None where no journal and no run is known by that reference."""
        if not is_local(reference):
            return reference
        uid = uid_of(reference)
        if uid not in self._runs:
            if found := self._find(uid, experiment_id):
                self._runs[uid] = found
            elif folder_of(self._root, uid):
                raise NotYetError(f"the run of the journal {uid} is not there yet")
        return self._runs.get(uid)

    def _find(self, uid: str, experiment_id: str) -> str | None:
        runs = self.client.search_runs([experiment_id], f"tags.journal = '{uid}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _filled(self, journal: Journal, value: str) -> str:
        position = journal.position
        return value.replace(RUN_ID, position.run_id or "").replace(EXPERIMENT_ID, position.experiment_id or "")

    def _show(self, experiment_id: str, wanted: Mapping[str, str], current: bool = False, report: bool = False) -> None:
        """Keep the saved views and the bar of links (see `views`) up to date."""
        wanted = {**views.views(), views.NOTE: views.note(experiment_id), **wanted}
        try:
            known = self.client.get_experiment(experiment_id).tags
            for key, value in wanted.items():
                kept = key in known and (
                    (key == views.CURVES and not current)
                    or (key == views.NOTE and (not report or not known[key].startswith("[Leaderboard]")))
                )
                if not kept and known.get(key) != value:
                    self.client.set_experiment_tag(experiment_id, key, value)
        except Exception as error:  # how the UI stores them is MLflow's own business: never in the way of a run
            warnings.warn(f"saved views of the MLflow UI: {error}", stacklevel=2)


class DeletedExperimentError(Exception):
    """The experiment of that name is in the store's bin."""


def connect(root: Path, store: str) -> Delivery:
    """To a store, see `store.place_of`. Raises ConnectionError where it does not answer, else what MLflow raises."""
    from mlflow import MlflowClient

    uri = store_uri(root, store)
    if reason := unreachable_reason(uri):
        raise ConnectionError(reason)
    with first_connection(root, uri):
        return Delivery(MlflowClient(uri), store, root)


def _batches(events: Iterator[tuple[dict[str, Any], int]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """As many events as one call takes, with the offset behind them."""
    batch: list[dict[str, Any]] = []
    points = names = end = 0
    for event, after in events:
        kind = event["event"]
        size = sum(map(len, event["values"].values())) if kind == "metrics" else 0
        named = len(event["values"]) if kind in ("params", "tags") else 0
        full = points + size > _POINTS_PER_CALL or names + named > _NAMES_PER_CALL
        if batch and (full or kind not in _BATCHED):
            yield batch, end
            batch, points, names = [], 0, 0
        end = after
        if kind not in _BATCHED:
            yield [event], end
            continue
        batch.append(event)
        points, names = points + size, names + named
    if batch:
        yield batch, end


def _stored(journal: Journal, event: Mapping[str, Any]) -> Path:
    path: Path = (journal.folder / event["stored"]).resolve()
    if not path.is_relative_to(journal.folder.resolve()):
        raise ValueError(f"{journal.folder / 'events.jsonl'}: {event['stored']} is outside of the journal")
    return path
