"""Correct a SQLite store's paths of artifacts after the repository was moved: MLflow stores absolute ones."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ..core.errors import UserError
from .mlflow_compat import ARTIFACT_COLUMNS

FOLDER: Final = "mlartifacts"
"""The folder of the artifacts, beside the store."""
_BELOW: Final = re.compile(rf"(.*/{FOLDER})((?:/.*)?)", re.DOTALL)
_SECONDS: Final = 30.0  # a run that is being logged holds the store's lock for less


@dataclass(frozen=True)
class Elsewhere:
    """A place of artifacts in the store that is not below the folder beside it."""

    table: str
    column: str
    row: int
    location: str
    """As it is stored: a path, or a URI of `file`."""
    folder: Path
    """The folder of artifacts that it is in."""
    here: Path
    """Where the artifacts are if they moved along with the store."""

    @property
    def holds_many(self) -> bool:
        """Whether it is an experiment's, for runs to come, and not that of one run or model."""
        return self.table == "experiments"

    @property
    def there(self) -> bool:
        """Whether the artifacts are where the store says."""
        path = path_of(self.location)
        return path is not None and path.exists()


def path_of(location: str) -> Path | None:
    """Return the path of a place of artifacts; None if it is not in this machine's file system."""
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return Path(location) if location.startswith("/") else None


def relocate(store: Path) -> None:
    """Have the store name the artifacts beside it if it was moved or copied with them; print that it did.

    Raises `UserError` if the store cannot be written.
    """
    try:
        with closing(sqlite3.connect(store, timeout=_SECONDS, isolation_level=None)) as connection:
            if not outdated(_elsewhere(connection, store), store):
                return
            connection.execute("BEGIN IMMEDIATE")
            wrong = outdated(_elsewhere(connection, store), store)
            for place in wrong:
                new = place.here.as_uri() if place.location.startswith("file:") else str(place.here)
                connection.execute(
                    f"UPDATE {place.table} SET {place.column} = ? WHERE rowid = ?",
                    (new, place.row),
                )
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise UserError(f"MLflow store {store}: was moved, and its paths cannot be corrected: {error}") from error
    if any(not place.holds_many for place in wrong):  # else there is nothing yet that anybody would look for
        before = ", ".join(sorted({str(place.folder.parent) for place in wrong}))
        print(f"MLflow store {store}: moved from {before}; {len(wrong)} paths of artifacts corrected", flush=True)


def elsewhere(store: Path) -> list[Elsewhere]:
    """Return the places of artifacts that are in a folder `mlartifacts` other than that beside the store."""
    with closing(sqlite3.connect(store, timeout=1.0)) as connection:
        return list(_elsewhere(connection, store))


def outdated(places: Iterator[Elsewhere] | list[Elsewhere], store: Path) -> list[Elsewhere]:
    """Return the places that a move has made wrong.

    A folder of artifacts was left by a move if the folder above it is gone, if another store is beside it (this one is
    its copy), or if artifacts that it should hold are beside this store. A run's place is wrong if its artifacts are
    beside this store, or nowhere while the folder was left. So a copy of the store alone still shows the artifacts of
    the original, and new runs are written beside the copy.
    """
    places = list(places)
    left = {
        folder: not folder.parent.exists()
        or (folder.parent / store.name).exists()
        or any(place.here.exists() for place in places if place.folder == folder and not place.holds_many)
        for folder in {place.folder for place in places}
    }
    return [
        place
        for place in places
        if (place.holds_many and (left[place.folder] or not place.folder.exists()))
        or (not place.holds_many and (place.here.exists() or (left[place.folder] and not place.there)))
    ]


def _elsewhere(connection: sqlite3.Connection, store: Path) -> Iterator[Elsewhere]:
    beside = store.parent / FOLDER
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    same: dict[Path, bool] = {}
    for table, column in ARTIFACT_COLUMNS:
        if table not in tables:  # not a store of MLflow: its own message comes later
            continue
        # substr and instr, not LIKE: a path may contain its wild cards
        query = f"SELECT rowid, {column} FROM {table} WHERE instr({column}, ?) AND substr({column}, 1, ?) <> ?"
        known = beside.as_uri()
        for row, location in connection.execute(query, (f"/{FOLDER}", len(known), known)).fetchall():
            path = path_of(location)
            match = path and _BELOW.fullmatch(str(path))
            if not match:
                continue
            folder = Path(match[1])
            if folder not in same:  # by way of a symbolic link, or of another mount
                same[folder] = folder.exists() and beside.exists() and folder.samefile(beside)
            if not same[folder]:
                yield Elsewhere(table, column, row, location, folder, beside / match[2].lstrip("/"))
