"""Send a journal's events to MLflow. Sending an event twice, as after a crash, changes nothing.

MLflow's SQL stores key a metric by run, name, time, step and value, and parameters, tags and artifacts by name.
Metrics are therefore sent with the time of their event, and a point that is sent again adds no row. A run is found
again by its tag `journal`, a model by its name and run.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..core.redaction import redacted
from . import address, experiments, mlflow_compat, views
from .batches import BATCHED, batches
from .ids import Ids, NotYetError
from .journal import UNREADABLE, Journal, Position
from .lifecycle import MISSING, active_run
from .reachable import unreachable_reason
from .store import artifact_root, first_connection, store_uri

RUN_ID: Final = "{run_id}"
"""Placeholder for the run's id in the value of a tag: the text is written before MLflow has given an id."""
EXPERIMENT_ID: Final = "{experiment_id}"
"""Placeholder for the experiment's id, as `RUN_ID`."""
_REFUSALS: Final = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS")
"""Error codes of MLflow for what it will not take at any later time either."""
_RESTARTS: Final = 3


class _DeletedError(Exception):
    """The journal's run is deleted, or no longer in the store."""


class Delivery:
    """A connection to one store, over which journals are sent. What was acknowledged before an error stays so."""

    def __init__(self, client: Any, store: str, root: Path) -> None:
        """`client`: an `MlflowClient`. `store`: see `store.configured_store`. `root`: see `core.paths.main_root`."""
        self.client, self.store, self._root = client, store, root
        self._experiments: dict[str, str] = {}
        """Ids by name."""
        self._ids = Ids(client, root)
        self._adopted_points: dict[str, set[tuple[str, int, float]]] = {}
        """By journal: (name, step, value) of the points that its adopted run has already."""
        self._ranked: tuple[str, str | None, str | None] | None = None
        """The data set that the leaderboard shows: experiment, name, fingerprint."""
        self.refused: list[str] = []
        """Messages, one for each event that this store will never take, or that cannot be read."""

    def send(self, journal: Journal) -> None:
        """Send the events that the store lacks, and acknowledge them batch by batch.

        If the run was deleted in the store, or the store was replaced, all of the journal is sent to a new run.
        Raises `NotYetError`, `DeletedExperimentError`, or what MLflow raises.
        """
        journal.position.store = address.remember(journal.position.store)
        if journal.position.store != self.store:  # nothing of it is in this store
            journal.position = Position(store=self.store)
        if journal.size and not journal.begin:
            self.refused.append(f"{journal.unreadable[0]}; it names the run, so that nothing of it can be sent")
            return None
        for _ in range(_RESTARTS):
            try:
                return self._send_events(journal)
            except _DeletedError:
                self._begin_anew(journal)
        raise NotYetError("the run is deleted again and again")

    def _send_events(self, journal: Journal) -> None:
        from mlflow.exceptions import MlflowException

        position = journal.position
        for batch, end in batches(journal.events(position.offset)):
            try:
                self._apply(journal, batch)
            except MlflowException as error:
                self._require_run(journal, error)
                if error.error_code not in _REFUSALS:
                    raise
                self._apply_one_by_one(journal, batch)
            position.offset = end
            journal.acknowledge()

    def _require_run(self, journal: Journal, error: Any) -> None:
        """Find out whether MLflow raised `error` because run or experiment are deleted.

        Raises `_DeletedError` or `DeletedExperimentError` then.
        """
        if error.error_code not in (*_REFUSALS, MISSING):
            return
        if run_id := journal.position.run_id:
            if not active_run(self.client, run_id):
                raise _DeletedError from error
        else:
            self._experiments.clear()
            self.experiment(journal.begin["experiment"])

    def restart_if_deleted(self, journal: Journal) -> bool:
        """Have all of a journal sent to a new run if its run is deleted; return whether that is so."""
        position = journal.position
        if position.store != self.store or not position.run_id or active_run(self.client, position.run_id):
            return False
        self._begin_anew(journal)
        return True

    def _begin_anew(self, journal: Journal) -> None:
        """Have all of a journal sent to a new run, in place of one that was deleted."""
        position, name = journal.position, journal.begin.get("name", "")
        assert position.run_id
        gone = "is deleted, or no longer in the store"
        print(
            f"MLflow run {name} ({position.run_id}): {gone}; what was logged goes to a new run",
            file=sys.stderr,
            flush=True,
        )
        self._experiments.clear()  # the experiment may be deleted, too
        self._ids.forget(journal.uid)
        journal.position = Position(store=self.store, asked=True, earlier=[*position.earlier, position.run_id])
        journal.acknowledge()

    def experiment(self, name: str) -> str:
        """Return the id of the experiment `name`; create it, with its saved views, if the store has none.

        Raises `DeletedExperimentError`, or what MLflow raises.
        """
        if name not in self._experiments:
            location = artifact_root(self._root, store_uri(self._root, self.store))
            self._experiments[name] = experiments.find_or_create(self.client, name, location)
            experiments.update_views(self.client, self._experiments[name], {})
        return self._experiments[name]

    def _apply_one_by_one(self, journal: Journal, batch: list[dict[str, Any]]) -> None:
        """Apply a batch that MLflow refused; put the events that it refuses on their own aside."""
        from mlflow.exceptions import MlflowException

        for event in batch:
            try:
                self._apply(journal, [event])
            except MlflowException as error:
                self._require_run(journal, error)
                if error.error_code not in _REFUSALS:
                    raise
                journal.refuse(event, str(error))
                said = f"MLflow refused {journal.folder / 'refused.jsonl'}: {event['event']}: {error.message}"
                self.refused.append(redacted(said))

    def _apply(self, journal: Journal, batch: list[dict[str, Any]]) -> None:
        event = batch[0]
        if wrong := _problem(journal, event):
            journal.refuse(event, wrong)
            self.refused.append(redacted(wrong))
            return
        if journal.position.run_id is None and event["event"] not in ("begin", "adopt"):
            return  # the run to adopt is not in this store
        if event["event"] in BATCHED:
            self._log_batch(journal, batch)
        else:
            getattr(self, f"_on_{event['event']}")(journal, event)

    def _log_batch(self, journal: Journal, batch: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics: list[Metric] = []
        params: list[Param] = []
        tags: list[RunTag] = []
        for event in batch:
            if event["event"] == "metrics":
                metrics += self._new_metrics(journal, event)
            elif event["event"] == "params":
                params += [Param(name, value) for name, value in event["values"].items()]
            else:
                tags += [RunTag(name, self._fill_in(journal, value)) for name, value in event["values"].items()]
        self.client.log_batch(journal.position.run_id, metrics=metrics, params=params, tags=tags)

    def _new_metrics(self, journal: Journal, event: Mapping[str, Any]) -> list[Any]:
        """Return the points of an event as MLflow's `Metric`, without those that an adopted run has already."""
        from mlflow.entities import Metric

        run_id, model = journal.position.run_id, event.get("model")
        model_id = self._ids.of_model(journal, model) if model else None
        data = event.get("data", {}) if model_id else {}  # at the first logging: later it would be a second metric
        present = self._adopted_points.get(journal.uid, ())
        return [
            Metric(name, value, event["time"], step, model_id=model_id, run_id=run_id, **data)
            for name, values in event["values"].items()
            for step, value in enumerate(values, event["step"])
            if (name, step, value) not in present
        ]

    def _on_begin(self, journal: Journal, event: Mapping[str, Any]) -> None:
        position = journal.position
        position.experiment_id = self.experiment(event["experiment"])
        run_id = self._ids.search(journal.uid, position.experiment_id) if position.asked else None
        if run_id is None:
            parent = self._ids.of_run(event["parent"], position.experiment_id) if event["parent"] else None
            position.asked = True
            journal.acknowledge()
            tags = event["tags"] | {"journal": journal.uid} | ({"mlflow.parentRunId": parent} if parent else {})
            run_id = self.client.create_run(position.experiment_id, event["time"], tags, event["name"]).info.run_id
        position.run_id = run_id
        self._ids.remember(journal.uid, run_id)
        self._rank(position.experiment_id, event["tags"])
        self._take_over_children(position)

    def _rank(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Have the leaderboard show the data set of a run that belongs there; `tags`: those of the run."""
        data = (experiment_id, tags.get("data"), tags.get("data.fingerprint"))
        if views.LEADERBOARD in tags and data[2] and data != self._ranked:
            shown = views.rankings(str(data[1]), data[2])
            experiments.update_views(self.client, experiment_id, shown, shown)
            self._ranked = data

    def _take_over_children(self, position: Position) -> None:
        """Have the children of this run's deleted predecessors be its own."""
        for earlier in position.earlier:
            condition = f"tags.`mlflow.parentRunId` = '{earlier}'"
            for child in self.client.search_runs([position.experiment_id], condition, max_results=50_000):
                self.client.set_tag(child.info.run_id, "mlflow.parentRunId", position.run_id)

    def _on_adopt(self, journal: Journal, event: Mapping[str, Any]) -> None:
        position, reference = journal.position, event["reference"]
        position.experiment_id = self.experiment(event["experiment"])
        run_id = self._ids.of_run(reference, position.experiment_id)
        run = active_run(self.client, run_id) if run_id else None
        if run:
            self._adopted_points[journal.uid] = mlflow_compat.latest_points(run)
        if run or not event["name"]:  # no name (`Tracker.add_tags`): of use to that run alone
            position.run_id = run_id if run else None
        else:  # its models came from a cache of DVC: the run that trained them is in another store, or deleted
            self._on_begin(journal, event)

    def _on_resume(self, journal: Journal, _: Mapping[str, Any]) -> None:
        run_id = journal.position.run_id
        self.client.update_run(run_id, status="RUNNING")
        if "error" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "error")

    def _on_end(self, journal: Journal, event: Mapping[str, Any]) -> None:
        status, run_id = event["status"], journal.position.run_id
        if status is None and self.client.get_run(run_id).data.tags.get("journal") == journal.uid:
            status = "FINISHED"  # it was made in place of a run that this store lacks; an adopted one keeps its status
        if status:
            end = max(event["time"], journal.begin["time"])  # a clock can be set back
            self.client.set_terminated(run_id, status, end)

    def _on_text(self, journal: Journal, event: Mapping[str, Any]) -> None:
        self.client.log_text(journal.position.run_id, event["text"], event["path"])

    def _on_file(self, journal: Journal, event: Mapping[str, Any]) -> None:
        self.client.log_artifact(journal.position.run_id, str(journal.folder / event["stored"]), event["folder"])

    def _on_dataset(self, journal: Journal, event: Mapping[str, Any]) -> None:
        data = mlflow_compat.dataset_input(event["name"], event["digest"], event["source"], event["context"])
        self.client.log_inputs(journal.position.run_id, [data])

    def _on_views(self, journal: Journal, event: Mapping[str, Any]) -> None:
        position = journal.position
        assert position.experiment_id
        current = [self._ids.of_run(reference, position.experiment_id) for reference in event["current"]]
        wanted = views.views([run for run in current if run], event["sweeps"], trials=event.get("trials", False))
        wanted[views.NOTE] = views.note(position.experiment_id, position.run_id if event["report"] else None)
        newer = [views.CURVES] * bool(current) + [views.NOTE] * event["report"]
        experiments.update_views(self.client, position.experiment_id, wanted, newer)

    def _on_model(self, journal: Journal, event: Mapping[str, Any]) -> None:
        from mlflow.entities import LoggedModelOutput, Metric

        run_id, folder = journal.position.run_id, journal.folder / event["stored"]
        run = self.client.get_run(run_id)
        model = self._ids.find_model(journal, event["name"]) or self.client.create_logged_model(
            journal.position.experiment_id,
            event["name"],
            run_id,
            params=dict(run.data.params),
            tags=mlflow_compat.model_tags(run, {"mlflow.note.content": event.get("note", "")}),
        )
        mlflow_compat.assign_model(folder, model, run_id)
        self.client.log_model_artifacts(model.model_id, str(folder))
        outputs = run.outputs.model_outputs if run.outputs else []
        if model.model_id not in {output.model_id for output in outputs}:
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, event["step"])])
        data = {"dataset_name": run.data.tags.get("data"), "dataset_digest": run.data.tags.get("data.fingerprint")}
        points = [Metric(*point, model_id=model.model_id, run_id=run_id, **data) for point in event["points"]]
        self.client.log_batch(run_id, metrics=points)
        self.client.finalize_logged_model(model.model_id, "READY")
        journal.position.models[event["name"]] = str(model.model_id)

    def _fill_in(self, journal: Journal, value: str) -> str:
        position = journal.position
        return value.replace(RUN_ID, position.run_id or "").replace(EXPERIMENT_ID, position.experiment_id or "")


def connect(root: Path, store: str) -> Delivery:
    """Return a connection to a store, see `store.configured_store`.

    Raises ConnectionError if the store does not answer, `RefusedError`, or what MLflow raises.
    """
    from mlflow import MlflowClient

    uri = store_uri(root, store)
    if reason := unreachable_reason(uri):
        raise ConnectionError(reason)
    with first_connection(root, uri):
        return Delivery(MlflowClient(address.whole(uri)), store, root)


def _problem(journal: Journal, event: Mapping[str, Any]) -> str:
    """Return why an event cannot be sent, whatever the store says: its line, or what it attaches; empty: it can."""
    kind, stored = event["event"], event.get("stored")
    if kind == UNREADABLE:
        return f"{journal.sentence(event)}; the rest was sent"
    if kind not in BATCHED and not hasattr(Delivery, f"_on_{kind}"):
        return f"{journal.folder / 'events.jsonl'}: {kind!r} is no kind of event; the rest was sent"
    if stored is None:
        return ""
    path: Path = (journal.folder / stored).resolve()
    if not path.is_relative_to(journal.folder.resolve()):
        return f"{journal.folder / 'events.jsonl'}: {stored} is outside of the journal; the rest was sent"
    return "" if path.exists() else f"{journal.folder / stored}: is missing; the rest was sent"
