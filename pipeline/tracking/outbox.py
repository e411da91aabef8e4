"""Journals that ended processes left behind: list what MLflow lacks of them, and send it."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from ..core.redaction import redacted
from . import address
from . import journal as journals
from .delivery import Delivery, connect
from .ids import NotYetError
from .journal import Journal, position_of
from .store import ensure_store, store_uri


@dataclass(frozen=True)
class Waiting:
    """A run of which MLflow lacks events."""

    folder: Path
    """Of its journal."""
    name: str
    store: str
    """The store it was meant for, see `store.configured_store`."""
    bytes: int
    """Size of the events that MLflow lacks."""
    killed: bool
    """Whether its process ended without ending the run."""
    refused: bool
    """Whether MLflow refused an event of it for good, or a line of it could not be read."""
    unreadable: tuple[str, ...] = ()
    """A sentence for each line that cannot be read."""


def find(root: Path) -> list[Waiting]:
    """Return the runs of which MLflow lacks events and that no process is writing, the oldest first."""
    waiting = []
    for folder in sorted((root / journals.FOLDER).glob("*/")):
        with contextlib.suppress(Timeout, OSError), contextlib.closing(Journal(folder)) as journal:
            killed, refused = not journal.ended, (folder / "refused.jsonl").exists()
            if journal.pending or killed or refused:
                begin = journal.begin
                name, store = begin.get("name", ""), address.remember(begin.get("store", ""))
                lines = tuple(journal.unreadable)
                waiting.append(Waiting(folder, name, store, journal.pending, killed, refused, lines))
    return waiting


def at_work(root: Path) -> int:
    """Return the number of runs that processes are writing now; these processes send them."""
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
    root: Path, waiting: Sequence[Waiting], to: str | None = None, on_sent: Callable[[Path], None] = lambda _: None
) -> list[str]:
    """Send runs to the stores that they were meant for, or to the URI `to`; return a message for each failure.

    `on_sent` is called with the folder of every journal that is done with. Raises `UserError` if `to` is no store.
    """
    if to is not None:
        to = ensure_store(root, to)
    failures = []
    for store in dict.fromkeys(run.store for run in waiting):
        folders = [run.folder for run in waiting if run.store == store]
        target = store if to is None else to
        uri = store_uri(root, target)
        try:
            ensure_store(root, uri)
            delivery = connect(root, target)
            postponed = send_unsent(delivery, folders, store, on_sent)
            reason = f"{len(postponed)} runs refer to runs that it does not have yet" if postponed else ""
            failures += delivery.refused
        except Exception as error:
            reason = one_line(error)
        if reason:
            stays = f"what was meant for it stays in {root / journals.FOLDER}"
            failures.append(f"{uri}: {reason}; {stays}; `--to <URI>` sends that to another store")
    return failures


def send_unsent(
    delivery: Delivery, folders: Sequence[Path], store: str, on_sent: Callable[[Path], None] = lambda _: None
) -> list[Path]:
    """Send the journals of ended processes that were meant for `store`; a run whose process was killed ends KILLED.

    Returns the journals that refer to a run that the store does not have. Raises what MLflow raises.
    """
    waiting = list(folders)
    while waiting:
        postponed = [folder for folder in waiting if not _send(delivery, folder, store)]
        for folder in waiting:
            if folder not in postponed:
                on_sent(folder)
        if len(postponed) == len(waiting):
            return postponed
        waiting = postponed
    return []


def _send(delivery: Delivery, folder: Path, store: str) -> bool:
    """Send one journal; return False if it refers to a run that the store does not have yet."""
    try:
        journal = Journal(folder)
    except (Timeout, OSError):  # locked: its process sends it; or removed
        return True
    try:
        if address.remember(journal.begin.get("store", "")) == store:
            if journal.begin and not journal.ended:
                mark_killed(journal)
            delivery.send(journal)
    except NotYetError:
        return False
    finally:
        if not journal.finish():
            journal.close()
    return True


def mark_killed(journal: Journal) -> None:
    """End the run of a killed process as KILLED, at the time of its last event.

    Drop what an evaluation was adding to an adopted run: the evaluation is incomplete, and is done again.
    """
    if journal.begin.get("event") == "adopt":
        journal.append({"event": "end", "time": 0, "status": None})
        journal.position.offset = journal.size
        journal.acknowledge()
        return
    last = max((event.get("time", 0) for event, _ in journal.events()), default=0)
    journal.append({"event": "tags", "time": last, "values": {"error": "its process was killed"}})
    journal.append({"event": "end", "time": last, "status": "KILLED"})


def one_line(error: Exception) -> str:
    """Return the error's message on one line of at most 300 characters, without secrets; its type if it is empty."""
    text = " ".join(redacted(str(error)).split()) or type(error).__name__
    return text if len(text) < 300 else f"{text[:140]} … {text[-140:]}"


def unsent(root: Path) -> list[Path]:
    """Return the journals of which MLflow may lack events, the oldest first, locked or not. Opens none of them."""
    folders = []
    for folder in sorted((root / journals.FOLDER).glob("*/")):
        with contextlib.suppress(OSError):
            if position_of(folder).offset != (folder / "events.jsonl").stat().st_size:  # more: see `Journal`
                folders.append(folder)
    return folders
