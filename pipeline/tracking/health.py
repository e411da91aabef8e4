"""Check a store from outside, without opening it through MLflow."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from . import address, mlflow_compat, relocation
from .reachable import RefusedError, unreachable_reason
from .store import file_of, store_uri

Mark = Literal["ok", "warn", "FAIL"]
ANSWER_SECONDS: Final = 3.0
"""Time limit for the answer to one request."""


def store(root: Path, experiment: str = "") -> Iterator[tuple[Mark, str]]:
    """Check that the configured store answers, can be written, and fits the installed MLflow.

    `experiment`: name of the one that runs will be logged to, which must not be deleted; empty: not checked.
    Yields a mark and a message for each finding. MLflow is imported, which takes seconds, only to ask a server. Raises
    `UserError` if the store's URI is not allowed.
    """
    uri = store_uri(root)
    try:
        reason = unreachable_reason(uri)
    except RefusedError as error:
        yield "FAIL", f"{uri}: {error}"
        return
    if reason:
        yield "warn", f"{uri}: {reason}; training goes on, and `python -m pipeline.sync` sends what was logged"
    elif uri.startswith("http"):
        yield from _server(uri)
        yield from _deleted(uri, _on_server(uri, experiment), experiment)
    elif not uri.startswith("sqlite:///"):
        yield "ok", f"{uri}: answers"
    elif not file_of(uri).exists():
        yield "ok", f"{uri}: will be built by the first run"
    else:
        yield from database(file_of(uri))
        yield from _artifacts(file_of(uri))
        yield from _deleted(uri, _in_file(file_of(uri), experiment), experiment)


def _artifacts(path: Path) -> Iterator[tuple[Mark, str]]:
    """Check that the artifacts of a SQLite store are beside it."""
    try:
        places = relocation.elsewhere(path)
    except sqlite3.Error:  # said by `database`
        return
    moved = relocation.outdated(places, path)
    if moved:
        before = ", ".join(sorted({str(place.folder.parent) for place in moved}))
        yield "ok", f"{path}: moved from {before}; the next run corrects {len(moved)} paths of artifacts"
    for folder in sorted({place.folder for place in places if place not in moved}):
        count = sum(place.folder == folder for place in places if place not in moved)
        beside = f"move what is in there to {path.parent / relocation.FOLDER}, and the next run corrects the paths"
        yield "warn", f"{path}: {count} places of artifacts are in {folder}, not beside the store; {beside}"


def _deleted(uri: str, stage: str, experiment: str) -> Iterator[tuple[Mark, str]]:
    if stage == "deleted":
        advice = "restore it (`mlflow experiments restore`), or choose another name"
        yield "FAIL", f"tracking.experiment = {experiment}: is deleted in {uri}; {advice}"


def _in_file(path: Path, experiment: str) -> str:
    """Return the lifecycle stage of an experiment in a SQLite store; empty if it has none, or cannot be read."""
    try:
        with closing(sqlite3.connect(path, timeout=1.0)) as connection:
            query = "SELECT lifecycle_stage FROM experiments WHERE name = ?"
            row = connection.execute(query, (experiment,)).fetchone()
    except sqlite3.Error:  # said by `database`
        return ""
    return str(row[0]) if row else ""


def _on_server(uri: str, experiment: str) -> str:
    """Return the lifecycle stage of an experiment on a server; empty if it has none, or does not say."""
    path = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment, safe='')}"
    status, text = mlflow_compat.ask_server(address.whole(uri), path, ANSWER_SECONDS)
    try:
        return str(json.loads(text)["experiment"]["lifecycle_stage"]) if status == 200 else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _server(uri: str) -> Iterator[tuple[Mark, str]]:
    installed = metadata.version("mlflow")
    status, text = mlflow_compat.ask_server(address.whole(uri), "/version", ANSWER_SECONDS)
    version = text[:100] if status == 200 else f"of an unknown version (HTTP {status})"
    if version.split(".")[:2] == installed.split(".")[:2]:
        yield "ok", f"{uri}: answers, MLflow {version}"
    else:
        yield "warn", f"{uri}: MLflow {version} there, {installed} here: models and views may not get through"


def database(path: Path) -> Iterator[tuple[Mark, str]]:
    """Check that a SQLite store can be written and has the schema of the installed MLflow; yield as `store` does."""
    wanted = mlflow_compat.schema_head()
    try:
        with closing(sqlite3.connect(path, timeout=1.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        yield "FAIL", f"{path}: {error}; if no process uses it, move it away: the next run builds a new one"
        return
    if revision == wanted:
        yield "ok", f"{path}: {path.stat().st_size / 2**20:,.1f} MiB, schema {revision}"
    else:
        yield (
            "FAIL",
            f"{path}: schema {revision}, MLflow wants {wanted}: copy it, then `mlflow db upgrade sqlite:///{path}`",
        )
