"""Journals that ended processes left behind: what of them MLflow lacks, and the sending of it."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from . import journal as journals
from .delivery import Delivery, NotYetError, connect
from .journal import Journal, position_of
from .store import ensure_store, store_uri


@dataclass(frozen=True)
class Waiting:
    """A run of which MLflow lacks something."""

    folder: Path
    name: str
    store: str
    """See `store.place_of`."""
    bytes: int
    killed: bool
    """Whether its process ended without a word."""
    refused: bool
    """Whether MLflow refused something of it, for good."""


def find(root: Path) -> list[Waiting]:
    """What waits and no process is at work on, the oldest first."""
    found = []
    for folder in sorted((root / journals.FOLDER).glob("*/")):
        with contextlib.suppress(Timeout, OSError), contextlib.closing(Journal(folder)) as journal:
            killed, refused = not journal.ended, (folder / "refused.jsonl").exists()
            if journal.pending or killed or refused:
                begin = journal.begin
                name, store = begin.get("name", ""), begin.get("store", "")
                found.append(Waiting(folder, name, store, journal.pending, killed, refused))
    return found


def at_work(root: Path) -> int:
    """Runs that processes are writing now, and send themselves."""
    count = 0
    for folder in (root / journals.FOLDER).glob("*/"):
        try:
            Journal(folder).close()
        except Timeout:
            count += 1
        except OSError:  # just removed
            continue
    return count


def send(
    root: Path, found: Sequence[Waiting], to: str | None = None, each: Callable[[Path], None] = lambda _: None
) -> list[str]:
    """Send them to the stores that they were meant for, or to `to`; returns what went wrong.

    `each` is told of every journal that is through. Raises `UserError` where `to` is no store.
    """
    if to is not None:
        ensure_store(root, to)
    failures = []
    for store in dict.fromkeys(one.store for one in found):
        folders = [one.folder for one in found if one.store == store]
        place = store if to is None else to
        uri = store_uri(root, place)
        try:
            ensure_store(root, uri)
            delivery = connect(root, place)
            later = send_left(delivery, folders, store, each)
            reason = f"{len(later)} runs refer to others that are not there yet" if later else ""
            failures += [f"MLflow refused {text}" for text in delivery.refused]
        except Exception as error:
            reason = short(error)
        if reason:
            stays = f"what was meant for it stays in {root / journals.FOLDER}"
            failures.append(f"{uri}: {reason}; {stays}; `--to <URI>` sends that to another store")
    return failures


def send_left(
    delivery: Delivery, folders: Sequence[Path], store: str, each: Callable[[Path], None] = lambda _: None
) -> list[Path]:
    """Send what processes that have ended left behind for `store`; runs whose process was killed end KILLED.

    Returns those that wait for another one. Raises what MLflow raises.
    """
    left = list(folders)
    while left:
        later = [folder for folder in left if not _send(delivery, folder, store)]
        for folder in left:
            if folder not in later:
                each(folder)
        if len(later) == len(left):
            return later
        left = later
    return []


def _send(delivery: Delivery, folder: Path, store: str) -> bool:
    """False where it must wait for another one."""
    try:
        journal = Journal(folder)
    except (Timeout, OSError):  # held: its process sends it; or gone
        return True
    try:
        if journal.begin.get("store") == store:
            if not journal.ended:
                mark_killed(journal)
            delivery.send(journal)
    except NotYetError:
        return False
    finally:
        if not journal.finish():
            journal.close()
    return True


def mark_killed(journal: Journal) -> None:
    """Its process ended without a word: the run ended with its last event.

    What an evaluation was about to add to a run is dropped: it was not finished, and is done again.
    """
    if journal.begin.get("event") == "adopt":
        journal.append({"event": "end", "time": 0, "status": None})
        journal.position.offset = journal.size
        journal.acknowledge()
        return
    last = max((event.get("time", 0) for event, _ in journal.events()), default=0)
    journal.append({"event": "tags", "time": last, "values": {"error": "its process was killed"}})
    journal.append({"event": "end", "time": last, "status": "KILLED"})


def short(error: Exception) -> str:
    """On one line, of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else f"{text[:140]} … {text[-140:]}"


def left_behind(root: Path) -> list[Path]:
    """Journals of which MLflow may lack something, the oldest first, whoever holds them. Cheap."""
    found = []
    for folder in sorted((root / journals.FOLDER).glob("*/")):
        with contextlib.suppress(OSError):
            if position_of(folder).offset < (folder / "events.jsonl").stat().st_size:
                found.append(folder)
    return found
