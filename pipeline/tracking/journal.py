"""A run's journal: every event is on disk before it is sent to MLflow, so that no outage and no kill loses one.

The folder `<main root>/journal/<time>-<uid>/` holds `events.jsonl` (append-only, an event a line), `files/` (copies of
the files that events name), `position.json` (how much MLflow has), `keep` if a later process may continue the run, and
`refused.jsonl` if MLflow refused an event. It is removed once MLflow has all of a run that ended. The process that
works on it holds the lock file `<folder>.lock`.
"""

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, Final

from filelock import FileLock, Timeout

from ..core.redaction import redacted, without_credentials_inside
from .batches import BATCHED
from .lines import append_line, cut_off_incomplete_line, end_of_last_line

FOLDER: Final = "journal"
_KEEP_DAYS: Final = 14
_LOCK_SECONDS: Final = 30.0
_LOCAL: Final = "journal:"
UNREADABLE: Final = "unreadable"
"""The kind of an event that stands for a line which cannot be read."""


def is_local(reference: str) -> bool:
    """Return whether a reference names a run's journal: MLflow had not given the run an id yet."""
    return reference.startswith(_LOCAL)


def local(uid: str) -> str:
    """Return a reference to the run of the journal `uid`: `journal:<uid>`."""
    return _LOCAL + uid


def uid_of(reference: str) -> str:
    """Return the journal's uid of a reference that `local` made."""
    return reference.removeprefix(_LOCAL)


@dataclass
class Position:
    """How much of a journal one store has: the content of `position.json`."""

    offset: int = 0
    """Bytes of `events.jsonl` that the store has."""
    store: str = ""
    """See `store.configured_store`."""
    run_id: str | None = None
    experiment_id: str | None = None
    asked: bool = False
    """Whether the store was asked to create the run; it may have done so though its answer was lost."""
    models: dict[str, str] = field(default_factory=dict)
    """Ids of the run's models, by name."""
    earlier: list[str] = field(default_factory=list)
    """Ids of the runs that held the journal before, and were deleted in the store."""


class Journal:
    """One run's journal, locked by this process. Any number of threads may append to it."""

    def __init__(self, folder: Path, wait_seconds: float = 0.0, *, new: bool = False) -> None:
        """Lock and open the journal in `folder`; `new`: make the folder. An incomplete last line is cut off.

        Raises `filelock.Timeout` if another process still holds the lock after `wait_seconds`, and OSError if the
        folder is missing or cannot be made, locked or read.
        """
        self.folder = folder
        self.uid = folder.name.rpartition("-")[2]
        # Beside the folder, not in it: FileLock makes missing folders, and would bring a removed journal back.
        self._lock = FileLock(f"{folder}.lock", timeout=wait_seconds, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise
        except OSError as error:  # name the path that users know, not the target of a symbolic link
            raise OSError(error.errno, error.strerror, str(folder)) from error
        self._events, self._guard = folder / "events.jsonl", RLock()
        try:
            if new:
                folder.mkdir()
            elif not folder.exists():  # another process removed it meanwhile
                Path(self._lock.lock_file).unlink(missing_ok=True)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
            self._file = self._events.open("ab", buffering=0)  # a buffer would keep what a full disk did not take
            cut_off_incomplete_line(self._file)
        except OSError:
            self._lock.release()
            raise
        self.position = position_of(folder)
        if self.position.offset not in (0, self._line_end(self.position.offset)):
            self.position.offset = 0  # a power failure took events that had been sent: sent again, nothing changes

    @classmethod
    def create(cls, root: Path, *, resumable: bool = False) -> "Journal":
        """Make a journal below the main root.

        `resumable`: a later process may continue the run; the journal stays until `release`, though MLflow has all.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + f"-{int(now * 1e6) % 1_000_000:06}"
        # Not 0 s: `tidy` of another process takes a lock that has no folder yet for a leftover, and holds it briefly.
        journal = cls(root / FOLDER / f"{stamp}-{uuid.uuid4().hex}", wait_seconds=_LOCK_SECONDS, new=True)
        if resumable:
            (journal.folder / "keep").touch()
        return journal

    def append(self, event: Mapping[str, Any]) -> None:
        """Append an event without the credentials in its URLs, whole or not at all, whatever interrupts it.

        A kill may leave a part that is cut off later. Raises OSError if the disk does not take it.
        """
        if event["event"] != "metrics":  # numbers
            event = without_credentials_inside(event)
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        with self._guard:
            append_line(self._file, line)

    def to_disk(self) -> None:
        """Flush the events to the disk with fsync, so that they survive a power failure."""
        with self._guard:
            os.fsync(self._file.fileno())

    def attach(self, source: Path) -> str:
        """Copy a file or a folder into the journal; return the copy's path relative to the journal's folder."""
        copy = self._new_path(source.name)
        if source.is_dir():  # without modes: a file that DVC has linked to its cache is read-only
            shutil.copytree(source, copy, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, copy)
        return str(copy.relative_to(self.folder))

    def attach_folder(self, name: str) -> Path:
        """Return the path, in the journal, of a folder `name` that the caller is to make and fill."""
        return self._new_path(name)

    def events(self, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the events from a byte offset on, each with the offset of the next one.

        A line that cannot be read, as a damaged disk or an editor leaves it, becomes an event `UNREADABLE`.
        """
        with self._events.open("rb") as file:
            file.seek(offset)
            while (line := file.readline()).endswith(b"\n"):  # else another thread is amid it
                try:
                    event = _event_of(line)
                except ValueError as error:
                    reason = " ".join(str(error).split())
                    event = {"event": UNREADABLE, "line": self._number_of(offset), "reason": reason}
                offset += len(line)
                yield event, offset

    @property
    def size(self) -> int:
        """Bytes of all events. Read from the file: a count beside it would be wrong after an interruption."""
        with self._events.open("rb", buffering=0) as file:
            return end_of_last_line(file)

    @property
    def pending(self) -> int:
        """Bytes of events that MLflow does not have yet."""
        return self.size - self.position.offset

    @property
    def begin(self) -> dict[str, Any]:
        """The first event (`begin` or `adopt`); empty if the journal has no event, or that one cannot be read."""
        first = next((event for event, _ in self.events()), {})
        return {} if first.get("event") == UNREADABLE else first

    @property
    def unreadable(self) -> list[str]:
        """A sentence for each line that cannot be read, with file and number."""
        return [self.sentence(event) for event, _ in self.events() if event["event"] == UNREADABLE]

    def sentence(self, event: Mapping[str, Any]) -> str:
        """Return what is wrong with a line that cannot be read."""
        return f"{self._events}, line {event['line']}: cannot be read: {event['reason']}"

    @property
    def ended(self) -> bool:
        """Whether the run's latest session has ended; True for a journal without a session."""
        last = ""
        for event, _ in self.events():
            if event["event"] in ("begin", "adopt", "resume", "end"):
                last = event["event"]
        return last in ("", "end")

    @property
    def resumable(self) -> bool:
        """Whether a later process may continue the run."""
        return (self.folder / "keep").exists()

    def acknowledge(self) -> None:
        """Write the position to `position.json`, atomically."""
        part = self.folder / "position.part"
        part.write_text(json.dumps(asdict(self.position)), encoding="utf-8")
        part.replace(self.folder / "position.json")

    def refuse(self, event: Mapping[str, Any], reason: str) -> None:
        """Append an event that MLflow will never take to `refused.jsonl`, with the reason."""
        with (self.folder / "refused.jsonl").open("ab", buffering=0) as file:
            append_line(file, json.dumps({"reason": redacted(reason), **event}).encode() + b"\n")

    def finish(self) -> bool:
        """Remove the journal if MLflow has all of it and the run is over; return whether it was removed.

        A journal that is resumable, or of which MLflow refused an event, stays.
        """
        done = not self.pending and not self.resumable and not (self.folder / "refused.jsonl").exists() and self.ended
        if done:
            self._file.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
        return done

    def close(self) -> None:
        """Release the lock: another process may open the journal."""
        self._file.close()
        self._lock.release()

    def _line_end(self, offset: int) -> int:
        """Return the end of the last line that ends at `offset` or before it."""
        with self._events.open("rb", buffering=0) as file:
            return end_of_last_line(file, offset)

    def _number_of(self, offset: int) -> int:
        """Return the number of the line that begins at `offset`, from 1."""
        with self._events.open("rb") as file:
            return file.read(offset).count(b"\n") + 1

    def _new_path(self, name: str) -> Path:
        with self._guard:
            folder = self.folder / "files" / uuid.uuid4().hex[:12]
            folder.mkdir(parents=True)
            return folder / name


def _event_of(line: bytes) -> dict[str, Any]:
    """Return the event of a line. Raises ValueError for a line that holds none."""
    try:
        event: Any = json.loads(line)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not (isinstance(event, dict) and isinstance(event.get("event"), str)):
        raise ValueError("is no event")
    if event["event"] in BATCHED and not _has_values(event):
        raise ValueError(f"{event['event']} without values")
    return event


def _has_values(event: Mapping[str, Any]) -> bool:
    values = event.get("values")
    if not isinstance(values, dict):
        return False
    return event["event"] != "metrics" or all(isinstance(each, list) and each for each in values.values())


def position_of(folder: Path) -> Position:
    """Return how much of the journal in `folder` a store has; the start if `position.json` is missing or damaged."""
    try:
        return Position(**json.loads((folder / "position.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # all is sent again, which changes nothing
        return Position()


def folder_of(root: Path, uid: str) -> Path | None:
    """Return the folder of the journal `uid`; None if there is no such journal."""
    return next((root / FOLDER).glob(f"*-{uid}"), None)


def store_of(folder: Path) -> str:
    """Return the store that a journal is meant for, see `store.configured_store`; empty if no event tells."""
    with (folder / "events.jsonl").open("rb") as file:
        first = file.readline()
    with contextlib.suppress(ValueError):
        return str(_event_of(first).get("store", "")) if first.endswith(b"\n") else ""
    return ""


def successor_of(root: Path, run_id: str) -> Path | None:
    """Return the folder of the journal that was sent to this run until the run was deleted; None: no such journal."""
    folders = (root / FOLDER).glob("*/")
    return next((folder for folder in folders if run_id in position_of(folder).earlier), None)


def release(folder: Path) -> None:
    """Note that no later process will continue the run; remove its journal if MLflow has all of it.

    A journal that another process holds is removed by that process.
    """
    (folder / "keep").unlink(missing_ok=True)
    with contextlib.suppress(OSError, Timeout):
        journal = Journal(folder)
        if not journal.finish():
            journal.close()


def tidy(root: Path) -> None:
    """Release the journals that MLflow has in full, and those without an event for 14 days; remove stray locks."""
    for lock in (root / FOLDER).glob("*.lock"):
        if not lock.with_suffix("").exists():  # its process was killed between the two removals
            release(lock.with_suffix(""))
    for folder in (root / FOLDER).glob("*/"):
        with contextlib.suppress(OSError):
            events = (folder / "events.jsonl").stat()
            sent = position_of(folder).offset >= events.st_size > 0 and not (folder / "keep").exists()
            if sent or time.time() - events.st_mtime > 86_400 * _KEEP_DAYS:
                release(folder)
