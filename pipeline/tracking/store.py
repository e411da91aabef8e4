"""The MLflow store: where it is, that it exists, and that two processes never build it at once."""

import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from ..errors import UserError

_ANSWER_SECONDS = 5.0
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in _DEFAULTS.items():  # read when mlflow is imported; a user's own setting stands
    os.environ.setdefault(_name, _value)


def store_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or SQLite at the main repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def artifact_root(root: Path) -> str | None:
    """Where artifacts go: beside the default store; None: where the server of `MLFLOW_TRACKING_URI` puts them."""
    uri = store_uri(root)
    return (_file_of(uri).parent / "mlartifacts").as_uri() if uri.startswith("sqlite:///") else None


def ensure_store(root: Path) -> str:
    """Make sure that the store answers, and return its URI. Raises `UserError` naming the URI where it does not.

    A SQLite store is built under a file lock in a temporary file that is renamed into place: two processes that
    initialise one MLflow database at once destroy it.
    """
    uri = store_uri(root)
    if not uri.startswith(("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql")):
        raise UserError(
            f"MLFLOW_TRACKING_URI = {uri}: allowed: sqlite:///<absolute path>, http(s)://<server>, or a database URL"
        )
    if uri.startswith("http"):
        _require_answer(uri)
    if uri.startswith("sqlite:///"):
        path = _file_of(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _build(path)
        except OSError as error:
            raise UserError(f"MLflow store {uri}: cannot be created: {error.strerror or error}") from error
    return uri


def _require_answer(uri: str) -> None:
    """One short question: MLflow's own client would ask for minutes, and print a warning for each try."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it answers; what it thinks of us is MLflow's to find out
    except (OSError, ValueError) as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI = {uri}: does not answer: {getattr(error, 'reason', error)}; "
            "start that server, or unset the variable to use mlflow.db in this repository"
        ) from error


def _file_of(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///")).absolute()


def _build(path: Path) -> None:
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    temporary = path.with_name(f"{path.name}.building-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    began = time.perf_counter()
    store = SqlAlchemyStore(f"sqlite:///{temporary}", (path.parent / "mlartifacts").as_uri())
    store.engine.dispose()
    temporary.replace(path)
    print(f"MLflow store {path} built in {time.perf_counter() - began:.1f} s", flush=True)
