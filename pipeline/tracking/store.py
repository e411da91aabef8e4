"""The MLflow store: its URI, whether it answers, and how it is built by one process at a time."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ..core.errors import UserError
from ..core.files import in_the_way
from . import address, mlflow_compat, relocation
from .journal import FOLDER as JOURNAL

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(mlflow_compat.DEFAULT_SECONDS),
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # failures are reported by our own code, once, without a traceback
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in _DEFAULTS.items():  # mlflow reads them when it is imported; a user's setting takes precedence
    os.environ.setdefault(_name, _value)


def configured_store(root: Path) -> str:
    """Return `MLFLOW_TRACKING_URI` without credentials, which `address` keeps.

    Empty for the default, `mlflow.db` at the main root, wherever that is moved. Raises `UserError` if the variable is
    not the URI of a store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if uri in ("", _default_uri(root)):  # MLflow sets the variable, too
        return ""
    address.require_kind(uri)
    return address.remember(uri)


def store_uri(root: Path, store: str | None = None) -> str:
    """Return the URI of `store`, a value of `configured_store`; None: the store that is configured now.

    It has no credentials: `address.whole` adds those that MLflow takes in no other way.
    """
    return (configured_store(root) if store is None else store) or _default_uri(root)


def _default_uri(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def artifact_root(root: Path, uri: str) -> str | None:
    """Return the URI of the artifacts' folder: beside a SQLite store, else at the main root; None: a server decides."""
    if uri.startswith("http"):
        return None
    return ((file_of(uri).parent if uri.startswith("sqlite:///") else root) / relocation.FOLDER).as_uri()


def ensure_store(root: Path, uri: str = "") -> str:
    """Build the store if it is a SQLite file that is missing; return its URI, see `store_uri`. A server is not asked.

    A SQLite store that was moved gets the present paths of its artifacts (see `relocation`).

    `uri`: of the store; empty: the configured one. Raises `UserError` if the URI is not that of a store, or the file
    cannot be created, or there can be no journal. The file is built under a lock in a temporary file that is renamed
    into place: two processes that initialise one MLflow database at once destroy it.
    """
    if uri:
        address.require_kind(uri, "--to")
    uri = address.remember(uri) if uri else store_uri(root)
    if blocked := in_the_way((root / JOURNAL).resolve()):  # a link to a folder that is yet to be made is good
        raise UserError(f"{root / JOURNAL}: cannot be made ({blocked} is no folder); move it away")
    if uri.startswith("sqlite:///"):
        path = file_of(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if path.exists():
                    relocation.relocate(path)
                else:
                    _build(path)
        except OSError as error:
            raise UserError(f"MLflow store {uri}: cannot be created: {error.strerror or error}") from error
    return uri


@contextmanager
def first_connection(root: Path, uri: str) -> Iterator[None]:
    """Lock out other processes during a first connection: it creates the tables of a fresh database server."""
    if uri.startswith(("sqlite:///", "http")):
        yield
        return
    with FileLock(root / "mlflow.db.lock"):
        yield


def file_of(uri: str) -> Path:
    """Return the absolute path of a SQLite store's file."""
    return Path(uri.removeprefix("sqlite:///")).absolute()


def _build(path: Path) -> None:
    temporary = path.with_name(f"{path.name}.building-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    began = time.perf_counter()
    mlflow_compat.build_store(temporary, (path.parent / relocation.FOLDER).as_uri())
    temporary.replace(path)
    print(f"MLflow store {path} built in {time.perf_counter() - began:.1f} s", flush=True)
