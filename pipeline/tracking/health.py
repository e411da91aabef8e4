"""The state of a store, seen from outside."""

import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from . import mlflow_compat
from .store import file_of, require_kind, store_uri, unreachable_reason

Mark = Literal["ok", "warn", "FAIL"]
ANSWER_SECONDS: Final = 3.0
"""For an answer to a short question."""


def store(root: Path) -> Iterator[tuple[Mark, str]]:
    """Whether it can be reached and written, and is of this MLflow, which is not imported: that takes seconds."""
    uri = store_uri(root)
    require_kind(uri)
    if reason := unreachable_reason(uri):
        yield "warn", f"{uri}: {reason}; training goes on, what is logged waits, `python -m pipeline.sync` sends it"
    elif uri.startswith("http"):
        yield from _server(uri)
    elif not uri.startswith("sqlite:///"):
        yield "ok", f"{uri.split('@')[-1]}: answers"
    elif not file_of(uri).exists():
        yield "ok", f"{uri}: will be built by the first run"
    else:
        yield from database(file_of(uri))


def _server(uri: str) -> Iterator[tuple[Mark, str]]:
    own = metadata.version("mlflow")
    with urllib.request.urlopen(f"{uri.rstrip('/')}/version", timeout=ANSWER_SECONDS) as answer:
        version = answer.read(100).decode(errors="replace")
    if version.split(".")[:2] == own.split(".")[:2]:
        yield "ok", f"{uri}: answers, MLflow {version}"
    else:
        yield "warn", f"{uri}: MLflow {version} there, {own} here: models and views may not get through"


def database(path: Path) -> Iterator[tuple[Mark, str]]:
    """A SQLite store."""
    wanted = mlflow_compat.schema_head()
    try:
        with closing(sqlite3.connect(path, timeout=1.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
            (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        yield "FAIL", f"{path}: {error}; if no process is at it, move it away: the next run builds a new one"
        return
    if found == wanted:
        yield "ok", f"{path}: {path.stat().st_size / 2**20:,.1f} MiB, schema {found}"
    else:
        yield (
            "FAIL",
            f"{path}: schema {found}, MLflow wants {wanted}: copy it, then `mlflow db upgrade sqlite:///{path}`",
        )
