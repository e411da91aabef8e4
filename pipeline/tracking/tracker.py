"""A process's door to MLflow: the store, the experiment with its saved views, and runs."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config.schema.tracking import TrackingConfig
from ..core.errors import UserError
from . import journal as journals
from . import mlflow_compat
from .delivery import DeletedExperimentError, Delivery, connect
from .journal import Journal, folder_of, local, position_of
from .outbox import left_behind
from .runs import Costs, Run, milliseconds, tags_of
from .sender import Sender
from .store import ensure_store, place_of, unreachable_reason

_HURRIED_SECONDS = 1.0  # for what waits, when somebody wants the process to end


class Tracker:
    """A process's door to MLflow.

    Where a server does not answer, runs are written to their journals all the same, and `python -m pipeline.sync`
    brings them there later. Raises `UserError` where a store is not one, cannot be written, or refuses us.
    """

    def __init__(self, tracking: TrackingConfig, root: Path) -> None:
        began = time.perf_counter()
        self.uri, self._root, self._name = ensure_store(root), root, tracking.experiment
        self._place = place_of(root)
        import logging

        logging.getLogger("alembic").setLevel(logging.WARNING)
        import mlflow

        self.costs = Costs()
        mlflow.set_tracking_uri(self.uri)
        journals.tidy(root)
        self._open = 0
        self._client: Any = None
        self._experiment_id = ""
        self._sender = Sender(root, self.uri, self._connect)
        self.unreachable = unreachable_reason(self.uri)
        """Why the store does not answer; empty where it does."""
        if self.unreachable:
            self._sender.reason = self.unreachable
            waits = f"what is logged waits in {root / journals.FOLDER}, the work goes on"
            print(f"MLflow {self.uri}: {self.unreachable}; {waits}", file=sys.stderr)
        else:
            try:
                self._sender.delivery = self._connect()
            except DeletedExperimentError as error:
                raise UserError(
                    f"tracking.experiment = {error}: is deleted in {self.uri}; restore it or choose another name"
                ) from error
            except Exception as error:
                raise UserError(f"MLflow store {self.uri}: does not answer: {error}") from error
        self.costs.open_seconds = time.perf_counter() - began

    @property
    def client(self) -> Any:
        """MLflow's client, for reading. Raises `UserError` where the store does not answer."""
        self._require_answer()
        return self._client

    @property
    def experiment_id(self) -> str:
        """Raises `UserError` where the store does not answer."""
        self._require_answer()
        return self._experiment_id

    @contextmanager
    def run(
        self, name: str, *, parent: str | None = None, tags: Mapping[str, Any], run_link: Path | None = None
    ) -> Iterator[Run]:
        """Open a run; it ends FINISHED, KILLED when interrupted, or FAILED with the error as its tag `error`.

        `parent`: a run's reference. `run_link`: a file that names the run's journal; if there is one, that run goes on.
        With the outermost run ends the wait for MLflow, or, with a message, the attempt.
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
                self.drain(**{"seconds": _HURRIED_SECONDS} if status == "KILLED" else {})

    def drain(self, **seconds: float) -> bool:
        """Wait until MLflow has everything; False, with a message, where it does not take it."""
        began = time.perf_counter()
        done = self._sender.drain(**seconds)
        self.costs.seconds += time.perf_counter() - began
        if not done:
            reason, count = self._sender.reason or "is slow", len(left_behind(self._root))
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
        """Add numbers and files (under `evaluate/`) to a run that has ended, and to its model, without reopening it.

        Where the store has no such run (its models were restored from a cache of DVC), to a new one of this name, with
        these tags. Returns the reference of the run that is a parent to others then.
        """
        now = milliseconds()
        journal = Journal.create(self._root)
        begin = self._begin(name, parent, {**tags, "origin.run": reference})
        journal.append(begin | {"event": "adopt", "reference": reference})
        for start in range(0, len(metrics), 500):
            part = {key: [float(metrics[key])] for key in list(metrics)[start : start + 500]}
            journal.append({"event": "metrics", "time": now, "step": 0, "values": part, "model": model})
        for path in files:
            stored = {"stored": journal.attach(path), "folder": "evaluate"}
            journal.append({"event": "file", "time": now, **stored})
        journal.append({"event": "end", "time": now, "status": None})
        self._sender.add(journal)
        return local(journal.uid)

    def add_tags(self, reference: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a run that has ended, where the store has it."""
        journal = Journal.create(self._root)
        journal.append(self._begin("", None, {}) | {"event": "adopt", "reference": reference})
        journal.append({"event": "tags", "time": milliseconds(), "values": tags_of(tags)})
        journal.append({"event": "end", "time": milliseconds(), "status": None})
        self._sender.add(journal)

    def reference(self, run_link: Path) -> str:
        """The reference of the run whose journal is named in `run_link`."""
        uid = run_link.read_text().strip()
        folder = folder_of(self._root, uid)
        return (position_of(folder).run_id if folder else None) or local(uid)

    def model_reference(self, run_link: Path, name: str) -> str:
        """The id of that run's model, or, as long as MLflow has none, its name."""
        folder = folder_of(self._root, run_link.read_text().strip())
        return position_of(folder).models.get(name, name) if folder else name

    def release(self, run_link: Path) -> None:
        """No later process will go on with the run whose journal is named in `run_link`."""
        if run_link.exists() and (folder := folder_of(self._root, run_link.read_text().strip())):
            (folder / "keep").unlink(missing_ok=True)
            self._sender.finish()
            if folder.exists():
                journals.release(folder)
        run_link.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of what waits: another process, such as `sync`, may send it. For the end of this process's use."""
        self._sender.close()

    def link(self, path: str) -> str:
        """The address of a page of the UI (see `views`): on the server, or on the one that `make ui` starts."""
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
        delivery = connect(self._root, self._place)
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
        uid = run_link.read_text().strip() if run_link and run_link.exists() else None
        if uid and (folder := folder_of(self._root, uid)):
            journal = Journal(folder, wait_seconds=30)  # a `sync` may be at it
            if journal.size:
                if not journal.ended:
                    journal.append({"event": "end", "time": milliseconds(), "status": "KILLED"})
                journal.append({"event": "resume", "time": milliseconds()})
                return journal
        else:
            journal = Journal.create(self._root, keep=run_link is not None)
        if run_link:
            run_link.write_text(journal.uid + "\n")
        journal.append(self._begin(name, parent, tags))
        return journal

    def _begin(self, name: str, parent: str | None, tags: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "event": "begin",
            "time": milliseconds(),
            "store": self._place,
            "experiment": self._name,
            "name": name,
            "parent": parent,
            "tags": mlflow_compat.add_context_tags(tags_of(tags)),
        }
