"""All code that depends on undocumented behaviour of MLflow (seen in 3.17.2). Read it first when the version changes.

tests/test_compat.py has a test for each function, which says what to do when it breaks. Importing MLflow takes seconds,
so the functions import it, not this module.
"""

import base64
import importlib.util
import itertools
import json
import logging
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

WARM_IMPORTS: Final = (
    *("mlflow.pyfunc", "mlflow.data.meta_dataset", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.system_metrics.system_metrics_monitor", "alembic.command", "sqlalchemy.dialects.sqlite"),
)
"""Modules that a run imports, of MLflow and for it: a warm worker (see `sweeps.workers`) loads them in advance."""
ARTIFACT_COLUMNS: Final = (
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
)
"""Tables and columns of a SQL store that hold absolute places of artifacts; an experiment's is that of new runs."""
DEFAULT_SECONDS: Final = 15
"""`MLFLOW_HTTP_REQUEST_TIMEOUT` if the user has not set it."""
VIEW_TAG: Final = "mlflow.sharedViewState."
"""Prefix of the experiment tags that hold saved views; the view's key follows."""
_VIEW_MILLISECONDS: Final = 1_767_225_600_000  # fixed: a view is the same text whenever it is written
_AS_CHARTS: Final = {"runs": "compareRunsMode", "models": "viewMode"}  # by page, the key of its query


class CertificateError(OSError):
    """The certificate of a server, or of this client, is not accepted."""


def ask_server(uri: str, path: str, seconds: float) -> tuple[int, str]:
    """Ask a server once, as MLflow's client does; return the HTTP status and the text of the answer.

    With its credentials (variables, `~/.mlflow/credentials`, `MLFLOW_TRACKING_AUTH`), certificates, headers of plugins,
    and the proxies of requests. `seconds`: time limit for the connection, and for each silence. Raises
    `CertificateError`, OSError if there is no answer, and ValueError if the settings allow no request.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request
    from requests.exceptions import RequestException, SSLError

    try:
        credentials = get_default_host_creds(uri)
        query, once = {"max_results": 1}, {"max_retries": 0, "retry_codes": (), "raise_on_status": False}
        answer = http_request(credentials, path, "GET", timeout=seconds, params=query, **once)
    except MlflowException as error:
        failed = "failed with exception" in str(error)  # else the context is what the caller is handling
        cause = error.__cause__ or (error.__context__ if failed else None)
        if isinstance(cause, SSLError) and re.search(r"(?i)certificate|wrong.version|unknown.ca", str(cause)):
            raise CertificateError(_reason(cause)) from error
        if isinstance(cause, SSLError):  # also if the server goes away amid the first words
            raise ConnectionError(f"{_reason(cause)} (does it want MLFLOW_TRACKING_CLIENT_CERT_PATH?)") from error
        if isinstance(cause, RequestException) and not isinstance(cause, ValueError):
            raise ConnectionError(_reason(cause)) from error
        if isinstance(cause, OSError) and not isinstance(cause, RequestException):  # a certificate's file is missing
            raise CertificateError(str(cause)) from error
        raise ValueError(str(cause or error)) from error
    return answer.status_code, answer.text


def _reason(error: Exception) -> str:
    """Return the innermost message of an error of requests, which wraps that of urllib3, which wraps the system's."""
    inner: Any = error
    while isinstance(cause := getattr(inner, "reason", None) or next(iter(inner.args), None), Exception):
        inner = cause
    return " ".join(str(inner).split())


def build_store(path: Path, artifact_root: str) -> None:
    """Write a SQLite store with the installed MLflow's schema to the new file `path`. `artifact_root`: a URI.

    Raises OSError, or what SQLAlchemy raises.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{path}", artifact_root).engine.dispose()


def schema_head() -> str | None:
    """Return the schema revision that the installed MLflow wants; None if its migrations have no head.

    MLflow is not imported.
    """
    spec = importlib.util.find_spec("mlflow")
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "store/db_migrations/versions"
    revisions, superseded = set(), set()
    # not alembic's ScriptDirectory: it runs the migrations, which import mlflow: 1.4 s in place of 0.02 s
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        revisions |= set(re.findall(r'(?m)^revision = ["\'](\w+)["\']', text))
        superseded |= set(re.findall(r'(?m)^down_revision = ["\'](\w+)["\']', text))
    return next(iter(revisions - superseded), None)


def add_context_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return `tags` with those that MLflow itself sets on a run: user, source program, git commit."""
    from mlflow.tracking.context.registry import resolve_tags

    return dict(resolve_tags(dict(tags)))


def latest_points(run: Any) -> set[tuple[str, int, float]]:
    """Return (name, step, value) of the latest point of each metric. `run`: a result of `MlflowClient.get_run`."""
    return {(metric.key, metric.step, metric.value) for metric in run.data._metric_objs}


def dataset_input(name: str, digest: str, source: Mapping[str, str], context: str) -> Any:
    """Return a `DatasetInput` for `MlflowClient.log_inputs`; `digest`: at most 36 characters."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    dataset = MetaDataset(CodeDatasetSource(tags=dict(source)), name=name, digest=digest)
    return DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])


def assign_model(folder: Path, model: Any, run_id: str | None) -> None:
    """Write the ids of a LoggedModel and of its run into `MLmodel` in `folder`, which was saved before they existed."""
    from mlflow.models import Model

    stored = Model.load(str(folder))
    stored.artifact_path, stored.run_id = model.artifact_location, run_id
    stored.model_id = stored.model_uuid = model.model_id
    stored.save(str(folder / "MLmodel"))


@contextmanager
def sampled_system_metrics(
    log_metrics: Callable[[Mapping[str, float], int], None], seconds: float, *, first_step: int
) -> Iterator[None]:
    """Pass CPU, memory, disk, network and GPU use as `system/*` to `log_metrics` every `seconds`, in a thread.

    MLflow's monitor measures. Its own loop would ask the server at each sample whether the run still exists.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    # the monitor makes a client that is never used: one of a server opens nothing, one of SQLite would build a database
    monitor = SystemMetricsMonitor("", sampling_interval=seconds, tracking_uri="http://127.0.0.1")
    ended = threading.Event()

    def sample() -> None:
        for step in itertools.count(first_step):
            monitor.collect_metrics()
            if ended.wait(monitor.sampling_interval):
                return
            log_metrics({f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}, step)
            for part in monitor.monitors:
                part.clear_metrics()

    thread = threading.Thread(target=sample, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def pack_view(name: str, state: Mapping[str, Any]) -> str:
    """Return the value of a tag `VIEW_TAG` + key, as the UI writes it when a user saves a view.

    `name`: the view's title. `state`: the UI's state of a table of runs (search, order, columns, charts), in its own
    keys.
    """
    text = json.dumps(state, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    times = dict.fromkeys(("createdAt", "updatedAt"), _VIEW_MILLISECONDS)
    return json.dumps({"name": name, **times, "state": f"deflate;{packed}"})


def view_title(packed: str) -> str:
    """Return the title of a saved view; `packed`: see `pack_view`."""
    return str(json.loads(packed)["name"])


def ui_path(experiment_id: str, page: str, *, view: str | None = None, charts: bool = False) -> str:
    """Return the path of a page of the UI, below the server's address.

    `page`: `runs`, `models`, or one of these with an id. `view`: the key of a saved view. `charts`: show charts, which
    a view cannot store. There is no search filter: beside a view, it would undo the view.
    """
    query = {"workflowType": "machine_learning"}  # without it, the UI opens in its mode for GenAI
    if view is not None:
        query["viewStateShareKey"] = view
    if charts:
        query[_AS_CHARTS[page]] = "CHART"
    return f"/#/experiments/{experiment_id}/{page}?{urlencode(query, quote_via=quote, safe='')}"


def model_tags(run: Any, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a LoggedModel that its page shows as creator, source and description, with `tags`.

    `run`: a result of `MlflowClient.get_run`.
    """
    names = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
    return {**{name: run.data.tags[name] for name in names if name in run.data.tags}, **tags}
