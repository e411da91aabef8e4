"""A process's connection to MLflow: the store, the experiment with its saved views, and runs."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from ..config.schema.tracking import TrackingConfig
from ..core.errors import UserError
from ..core.files import write_text
from . import address, mlflow_compat
from . import journal as journals
from .delivery import Delivery, connect
from .experiments import DeletedExperimentError
from .journal import Journal, folder_of, local, position_of
from .outbox import one_line, unsent
from .reachable import RefusedError, unreachable_reason
from .runs import Costs, Run, milliseconds, tags_of
from .sender import Sender
from .store import configured_store, ensure_store

_INTERRUPTED_SECONDS = 1.0  # an interrupted process waits no longer than this for MLflow


class Tracker:
    """A process's connection to MLflow.

    If a server does not answer, runs are still written to their journals, and `python -m pipeline.sync` sends them
    later.
    """

    def __init__(self, tracking: TrackingConfig, root: Path) -> None:
        """Open the store, and create the experiment if it is missing.

        Raises `UserError` if the store's URI is not allowed, the store cannot be created or refuses the connection
        (`RefusedError`), or the experiment is deleted.
        """
        began = time.perf_counter()
        self.uri, self._root, self._name = ensure_store(root), root, tracking.experiment
        self._store = configured_store(root)
        import logging

        logging.getLogger("alembic").setLevel(logging.WARNING)
        import mlflow

        self.costs = Costs()
        mlflow.set_tracking_uri(address.whole(self.uri))
        journals.tidy(root)
        self._open = 0
        self._client: Any = None
        self._experiment_id = ""
        self._sender = Sender(root, self.uri, self._connect)
        try:
            self.unreachable = unreachable_reason(self.uri)
        except RefusedError as error:
            raise UserError(f"MLflow {self.uri}: {error}") from error
        """Why the store does not answer; empty if it does."""
        if self.unreachable:
            self._sender.reason = self.unreachable
            waits = f"what is logged waits in {root / journals.FOLDER}, the work goes on"
            print(f"MLflow {self.uri}: {self.unreachable}; {waits}", file=sys.stderr)
        else:
            try:
                self._sender.delivery = self._connect()
            except DeletedExperimentError as error:
                raise UserError(
                    f"tracking.experiment = {error.name}: is deleted in {self.uri}; restore it, or choose another name"
                ) from error
            except Exception as error:
                raise UserError(f"MLflow store {self.uri}: cannot be used: {one_line(error)}") from error
        self.costs.open_seconds = time.perf_counter() - began

    @property
    def client(self) -> Any:
        """MLflow's client, for queries. Raises `UserError` if the store does not answer."""
        self._require_answer()
        return self._client

    @property
    def experiment_id(self) -> str:
        """Id of the experiment. Raises `UserError` if the store does not answer."""
        self._require_answer()
        return self._experiment_id

    @contextmanager
    def run(
        self, name: str, *, parent: str | None = None, tags: Mapping[str, Any], run_link: Path | None = None
    ) -> Iterator[Run]:
        """Open a run. It ends FINISHED; KILLED if interrupted; else FAILED. The tag `error` holds the error.

        `parent`: a run's reference. `run_link`: a file that holds the uid of the run's journal; if the file exists, the
        run is continued, else the file is written. At the end of the outermost run, wait until MLflow has everything.
        """
        run = self._start(name, parent, tags, run_link)
        self._open += 1
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
            self._open -= 1
            run.end(status)
            if not self._open:
                self.drain(**{"seconds": _INTERRUPTED_SECONDS} if status == "KILLED" else {})

    def drain(self, **seconds: float) -> bool:
        """Wait until MLflow has everything; return False, after a message, if it does not. See `Sender.drain`."""
        began = time.perf_counter()
        done = self._sender.drain(**seconds)
        self.costs.seconds += time.perf_counter() - began
        if not done:
            reason, count = self._sender.reason or "is slow", len(unsent(self._root))
            print(
                f"MLflow {self.uri}: {reason}; {count} journals wait in {self._root / journals.FOLDER}: "
                "`python -m pipeline.sync` sends them",
                file=sys.stderr,
                flush=True,
            )
        return done

    def add_results(
        self,
        reference: str,
        metrics: Mapping[str, float],
        *,
        name: str,
        tags: Mapping[str, Any],
        model: str | None = None,
        files: Sequence[Path] = (),
        parent: str | None = None,
    ) -> str:
        """Add metrics, at step 0, and files, below `evaluate/`, to a run that has ended, without reopening it.

        `model`: the id or name of the run's model that the metrics belong to. If the store has no such run, as after
        its models were restored from a cache of DVC, add them to a new run with this name, these tags and this parent.
        Returns the reference under which a later `add_results` may name that run as its parent.
        """
        now = milliseconds()
        journal = Journal.create(self._root)
        begin = self._begin(name, parent, {**tags, "origin.run": reference})
        journal.append(begin | {"event": "adopt", "reference": reference})
        data = {"dataset_name": tags.get("data"), "dataset_digest": tags.get("data.fingerprint")}
        for start in range(0, len(metrics), 500):
            part = {key: [float(metrics[key])] for key in list(metrics)[start : start + 500]}
            journal.append({"event": "metrics", "time": now, "step": 0, "values": part, "model": model, "data": data})
        for path in files:
            stored = {"stored": journal.attach(path), "folder": "evaluate"}
            journal.append({"event": "file", "time": now, **stored})
        journal.append({"event": "end", "time": now, "status": None})
        self._sender.add(journal)
        return local(journal.uid)

    def add_tags(self, reference: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a run that has ended; do nothing if the store does not have the run."""
        journal = Journal.create(self._root)
        journal.append(self._begin("", None, {}) | {"event": "adopt", "reference": reference})
        journal.append({"event": "tags", "time": milliseconds(), "values": tags_of(tags)})
        journal.append({"event": "end", "time": milliseconds(), "status": None})
        self._sender.add(journal)

    def reference(self, run_link: Path) -> str:
        """Return the reference of the run whose journal `run_link` names: MLflow's id, or the journal's."""
        uid = run_link.read_text(encoding="utf-8").strip()
        folder = folder_of(self._root, uid)
        return (position_of(folder).run_id if folder else None) or local(uid)

    def model_reference(self, run_link: Path, name: str) -> str:
        """Return the id of the model `name` of that run; the name itself as long as MLflow has given no id."""
        folder = folder_of(self._root, run_link.read_text(encoding="utf-8").strip())
        return position_of(folder).models.get(name, name) if folder else name

    def restore(self, run_link: Path) -> None:
        """If the run whose journal `run_link` names was deleted in the store, send all of it to a new run.

        For a run that an earlier process ended: one that this process writes is restored when an event is refused.
        """
        folder = folder_of(self._root, run_link.read_text(encoding="utf-8").strip()) if run_link.exists() else None
        if folder is None or self._sender.delivery is None:
            return
        with contextlib.suppress(Timeout):  # this process writes it
            journal = Journal(folder)
            if self._sender.delivery.restart_if_deleted(journal):
                self._sender.add(journal)
            else:
                journal.close()

    def release(self, run_link: Path) -> None:
        """Note that no later process will continue the run whose journal `run_link` names; delete `run_link`."""
        if run_link.exists() and (folder := folder_of(self._root, run_link.read_text(encoding="utf-8").strip())):
            (folder / "keep").unlink(missing_ok=True)
            self._sender.finish()
            if folder.exists():
                journals.release(folder)
        run_link.unlink(missing_ok=True)

    def close(self) -> None:
        """Release all journals, so that another process, such as `sync`, may send them. The last call of a tracker."""
        self._sender.close()

    def link(self, path: str) -> str:
        """Return the URL of a page of the UI, by its path (see `views`): on the server, else on that of `make ui`."""
        server = (
            self.uri.rstrip("/") if self.uri.startswith("http") else f"http://127.0.0.1:{os.environ.get('PORT', 5000)}"
        )
        return f"{server}{path}"

    def _require_answer(self) -> None:
        if self.unreachable:
            raise UserError(
                f"MLFLOW_TRACKING_URI = {self.uri}: {self.unreachable}; "
                "start that server, or unset the variable to use mlflow.db in this repository"
            )

    def _connect(self) -> Delivery:
        delivery = connect(self._root, self._store)
        self._experiment_id = delivery.experiment(self._name)
        self._client, self.unreachable = delivery.client, ""
        return delivery

    def _start(self, name: str, parent: str | None, tags: Mapping[str, Any], run_link: Path | None) -> Run:
        began = time.perf_counter()
        journal = self._journal(name, parent, tags, run_link)
        run = Run(self.costs, journal)
        self._sender.add(journal)
        self.costs.seconds += time.perf_counter() - began
        return run

    def _journal(self, name: str, parent: str | None, tags: Mapping[str, Any], run_link: Path | None) -> Journal:
        uid = run_link.read_text(encoding="utf-8").strip() if run_link and run_link.exists() else None
        if uid and (folder := folder_of(self._root, uid)):
            journal = Journal(folder, wait_seconds=30)  # a `sync` may be sending it
            if journal.size:
                if not journal.ended:
                    journal.append({"event": "end", "time": milliseconds(), "status": "KILLED"})
                journal.append({"event": "resume", "time": milliseconds()})
                return journal
        else:
            journal = Journal.create(self._root, resumable=run_link is not None)
        if run_link:
            write_text(run_link, journal.uid + "\n")
        journal.append(self._begin(name, parent, tags))
        return journal

    def _begin(self, name: str, parent: str | None, tags: Mapping[str, Any]) -> dict[str, Any]:
        source = {"mlflow.source.name": f"pipeline.{tags['stage']}"} if "stage" in tags else {}  # not a machine's path
        return {
            "event": "begin",
            "time": milliseconds(),
            "store": self._store,
            "experiment": self._name,
            "name": name,
            "parent": parent,
            "tags": mlflow_compat.add_context_tags(tags_of({**source, **tags})),
        }
