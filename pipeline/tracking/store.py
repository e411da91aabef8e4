"""The MLflow store: where it is, that it exists, and that two processes never build it at once."""

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from ..core.errors import UserError
from . import mlflow_compat

_ANSWER_SECONDS = 5.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is told by us, once, without a traceback
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in _DEFAULTS.items():  # read when mlflow is imported; a user's own setting stands
    os.environ.setdefault(_name, _value)


def place_of(root: Path) -> str:
    """`MLFLOW_TRACKING_URI`; empty: SQLite at the main repository's root, wherever that is moved."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return "" if uri == _default(root) else uri  # MLflow sets the variable, too


def store_uri(root: Path, place: str | None = None) -> str:
    """The URI of a place, see `place_of`; that is the default."""
    return (place_of(root) if place is None else place) or _default(root)


def _default(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def artifact_root(uri: str) -> str | None:
    """Where artifacts go: beside a SQLite store; None: where a server puts them."""
    return (file_of(uri).parent / "mlartifacts").as_uri() if uri.startswith("sqlite:///") else None


def ensure_store(root: Path, uri: str = "") -> str:
    """Make sure that the store, or `uri`, is one, and can be written if it is a file; return its URI, or `UserError`.

    A SQLite store is built under a file lock in a temporary file that is renamed into place: two processes that
    initialise one MLflow database at once destroy it.
    """
    named, uri = "--to" if uri else "MLFLOW_TRACKING_URI", uri or store_uri(root)
    require_kind(uri, named)
    if uri.startswith("sqlite:///"):
        path = file_of(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _build(path)
        except OSError as error:
            raise UserError(f"MLflow store {uri}: cannot be created: {error.strerror or error}") from error
    return uri


@contextmanager
def first_connection(root: Path, uri: str) -> Iterator[None]:
    """Around the first connection of a process: it creates the tables of a fresh database server, one at a time."""
    if uri.startswith(("sqlite:///", "http")):
        yield
        return
    with FileLock(root / "mlflow.db.lock"):
        yield


def require_kind(uri: str, named: str = "MLFLOW_TRACKING_URI") -> None:
    """Raise `UserError` where that is not the URI of a store that we write to."""
    if not uri.startswith(("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql")):
        raise UserError(f"{named} = {uri}: allowed: sqlite:///<absolute path>, http(s)://<server>, or a database URL")


def unreachable_reason(uri: str) -> str:
    """Why the store does not answer; empty where it does.

    One short question: MLflow's own client would ask for minutes, and print a warning for each try.
    """
    if uri.startswith("sqlite:///"):
        return ""
    try:
        if uri.startswith("http"):
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS):
                return ""
        address = urlsplit(uri)
        port = address.port or _PORTS[address.scheme.split("+")[0]]
        with socket.create_connection((address.hostname or "127.0.0.1", port), timeout=_ANSWER_SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers; what it thinks of us is MLflow's to find out
    except (OSError, ValueError, KeyError) as error:
        return f"does not answer: {getattr(error, 'reason', error)}"


def file_of(uri: str) -> Path:
    """Of a SQLite store."""
    return Path(uri.removeprefix("sqlite:///")).absolute()


def _build(path: Path) -> None:
    temporary = path.with_name(f"{path.name}.building-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    began = time.perf_counter()
    mlflow_compat.build_store(temporary, (path.parent / "mlartifacts").as_uri())
    temporary.replace(path)
    print(f"MLflow store {path} built in {time.perf_counter() - began:.1f} s", flush=True)
