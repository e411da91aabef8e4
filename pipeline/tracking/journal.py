"""A run's journal: every event is on disk before MLflow hears of it, so that no outage and no kill loses one.

`<main root>/journal/<time>-<id>/` holds `events.jsonl` (a line each, only ever added to), `files/` (copies of what the
events name) and `position.json` (how much MLflow has). It is removed once MLflow has all of a run that ended.
`<same>.lock` beside it is held by the process at work on it.
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

FOLDER: Final = "journal"
_KEEP_DAYS: Final = 14
_LOOK_SECONDS: Final = 30.0
_LOCAL: Final = "journal:"


def is_local(reference: str) -> bool:
    """Whether a run is referred to by its journal: MLflow had no answer, and so no id, when the reference was made."""
    return reference.startswith(_LOCAL)


def local(uid: str) -> str:
    """Refer to the run of the journal `uid`."""
    return _LOCAL + uid


def uid_of(reference: str) -> str:
    """The other way round."""
    return reference.removeprefix(_LOCAL)


@dataclass
class Position:
    """How much of a journal is in MLflow."""

    offset: int = 0
    """Bytes of `events.jsonl`."""
    store: str = ""
    """The one that has them, see `store.place_of`."""
    run_id: str | None = None
    experiment_id: str | None = None
    asked: bool = False
    """Whether that store was asked to create the run: it may have done so without our hearing of it."""
    models: dict[str, str] = field(default_factory=dict)
    """Ids, by name."""


class Journal:
    """One run's events, held by this process. Any number of threads may add to it."""

    def __init__(self, folder: Path, wait_seconds: float = 0.0, *, new: bool = False) -> None:
        """Raises `filelock.Timeout` where another process holds it, `OSError` where there is none or cannot be."""
        self.folder = folder
        self.uid = folder.name.rpartition("-")[2]
        # Beside the folder: FileLock makes the folders that it needs, and who removes one may not be the last to ask.
        self._lock = FileLock(f"{folder}.lock", timeout=wait_seconds, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise
        except OSError as error:  # named by where users know it, not by what a link leads to
            raise OSError(error.errno, error.strerror, str(folder)) from error
        self._events, self._guard = folder / "events.jsonl", RLock()
        try:
            if new:
                folder.mkdir()
            elif not folder.exists():  # removed since it was found
                Path(self._lock.lock_file).unlink(missing_ok=True)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
            self._file = self._events.open("ab")
            whole = self._events.read_bytes().rfind(b"\n") + 1
            if whole < self._file.tell():  # the power failed, or the disk was full, amid a line
                self._file.truncate(whole)
            self.size = whole
        except OSError:
            self._lock.release()
            raise
        self.position = position_of(folder)

    @classmethod
    def create(cls, root: Path, *, keep: bool = False) -> "Journal":
        """A new one. `keep`: until it is released, though MLflow may have all of it."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + f"-{int(now * 1e6) % 1_000_000:06}"
        # Others may look whether a lock without a folder is a leftover.
        journal = cls(root / FOLDER / f"{stamp}-{uuid.uuid4().hex}", wait_seconds=_LOOK_SECONDS, new=True)
        if keep:
            (journal.folder / "keep").touch()
        return journal

    def append(self, event: Mapping[str, Any]) -> None:
        """Add an event; a kill of this process leaves all of it or nothing."""
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        with self._guard:
            self._file.write(line)
            self._file.flush()
            self.size += len(line)

    def to_disk(self) -> None:
        """What was added survives a failure of the power, too."""
        with self._guard:
            os.fsync(self._file.fileno())

    def attach(self, source: Path) -> str:
        """Keep a copy of a file or a folder, and return its path below the journal's folder."""
        place = self._new_place(source.name)
        shutil.copytree(source, place) if source.is_dir() else shutil.copyfile(source, place)
        return str(place.relative_to(self.folder))

    def attach_folder(self, name: str) -> Path:
        """The path of a folder, yet to be made, whose content is kept."""
        return self._new_place(name)

    def events(self, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Events from a byte offset on, each with the offset of the next."""
        with self._events.open("rb") as file:
            file.seek(offset)
            while (end := file.tell()) < self.size:
                line = file.readline()
                yield json.loads(line), end + len(line)

    @property
    def pending(self) -> int:
        """Bytes that MLflow does not have yet."""
        return self.size - self.position.offset

    @property
    def begin(self) -> dict[str, Any]:
        """The first event; empty where there is none."""
        return next((event for event, _ in self.events()), {})

    @property
    def ended(self) -> bool:
        """Whether the run's latest session has ended."""
        last = ""
        for event, _ in self.events():
            if event["event"] in ("begin", "adopt", "resume", "end"):
                last = event["event"]
        return last in ("", "end")

    @property
    def kept(self) -> bool:
        """Whether a later process may go on with it."""
        return (self.folder / "keep").exists()

    def acknowledge(self) -> None:
        """Write the position down."""
        part = self.folder / "position.part"
        part.write_text(json.dumps(asdict(self.position)))
        part.replace(self.folder / "position.json")

    def refuse(self, event: Mapping[str, Any], reason: str) -> None:
        """Keep what MLflow will never take where it can be read."""
        with (self.folder / "refused.jsonl").open("a") as file:
            file.write(json.dumps({"reason": reason, **event}) + "\n")

    def finish(self) -> bool:
        """Remove it if nothing of it is needed any longer."""
        done = not self.pending and not self.kept and not (self.folder / "refused.jsonl").exists() and self.ended
        if done:
            self._file.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
        return done

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()
        self._lock.release()

    def _new_place(self, name: str) -> Path:
        with self._guard:
            folder = self.folder / "files" / uuid.uuid4().hex[:12]
            folder.mkdir(parents=True)
            return folder / name


def position_of(folder: Path) -> Position:
    """How much of the journal in that folder is in MLflow."""
    try:
        return Position(**json.loads((folder / "position.json").read_text()))
    except (OSError, ValueError, TypeError):  # none yet; or damaged: all is sent again, which changes nothing
        return Position()


def folder_of(root: Path, uid: str) -> Path | None:
    """Where the journal of that id is, if there is one."""
    return next((root / FOLDER).glob(f"*-{uid}"), None)


def release(folder: Path) -> None:
    """No later process will go on with that run: its journal goes once MLflow has all of it."""
    (folder / "keep").unlink(missing_ok=True)
    with contextlib.suppress(OSError, Timeout):
        journal = Journal(folder)
        if not journal.finish():
            journal.close()


def tidy(root: Path) -> None:
    """Release journals that wait for nobody: MLflow has all, or nobody went on with the run for two weeks."""
    for lock in (root / FOLDER).glob("*.lock"):
        if not lock.with_suffix("").exists():  # of a process that was killed between the removals of the two
            release(lock.with_suffix(""))
    for folder in (root / FOLDER).glob("*/"):
        with contextlib.suppress(OSError):
            facts = (folder / "events.jsonl").stat()
            sent = position_of(folder).offset >= facts.st_size > 0 and not (folder / "keep").exists()
            if sent or time.time() - facts.st_mtime > 86_400 * _KEEP_DAYS:
                release(folder)
