"""The thread that sends this process's journals to MLflow while training goes on."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .delivery import Delivery
from .ids import NotYetError
from .journal import Journal
from .outbox import one_line, send_unsent, unsent

_EVERY_SECONDS: Final = 3.0  # MLflow's cost is per call, 8 to 20 ms, not per metric
_LONGEST_PAUSE: Final = 30.0
_STUCK_SECONDS: Final = 60.0  # SQLite waits 20 s for its lock; a call to a server that says nothing ends sooner


class Sender:
    """A thread that sends a process's journals to one store. It starts with the first journal."""

    def __init__(self, root: Path, uri: str, connect: Callable[[], Delivery]) -> None:
        """`uri`: of the store, for messages. `connect`: opens the store, and raises if it does not answer."""
        self._root, self._uri, self._connect = root, uri, connect
        self.delivery: Delivery | None = None
        """None: not connected; the next journal to send connects."""
        self._journals: list[Journal] = []
        self._wake, self._done, self._sending = threading.Event(), threading.Condition(), threading.Lock()
        self._failures = 0
        self._thread: threading.Thread | None = None
        self.reason = ""
        """Why MLflow does not take the journals; empty if it does."""

    def add(self, journal: Journal) -> None:
        """Send a journal's events from now on."""
        self._journals = [*self._journals, journal]
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal to MLflow", daemon=True)
            self._thread.start()

    def drain(self, seconds: float = _STUCK_SECONDS) -> bool:
        """Wait until MLflow has every event; return False if sending fails or makes no progress for `seconds`."""
        if self._thread is None:
            return True
        with self._done:
            failures, last_progress, pending = self._failures, time.monotonic(), self._pending()
            self._wake.set()
            while pending and self._failures == failures and time.monotonic() - last_progress < seconds:
                self._done.wait(0.2)
                self._wake.set()
                if (now := self._pending()) != pending:
                    pending, last_progress = now, time.monotonic()
        self.finish()
        return not pending

    def _pending(self) -> int:
        return sum(journal.pending for journal in self._journals)

    def finish(self) -> None:
        """Remove the journals of ended runs that MLflow has in full."""
        if self._sending.acquire(timeout=1):  # not for ever: the thread may be in a call that a server does not answer
            self._journals = [journal for journal in self._journals if not journal.finish()]
            self._sending.release()

    def close(self) -> None:
        """Release the locks of all journals, so that other processes may send them."""
        with self._sending:
            for journal in self._journals:
                journal.close()
            self._journals = []

    def _run(self) -> None:
        pause, earlier = _EVERY_SECONDS, unsent(self._root)
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                if earlier:  # left behind by earlier processes
                    delivery = self._connected()
                    send_unsent(delivery, earlier, delivery.store)
                    earlier = []
                    self._say_refused(delivery)
                self._round()
                pause, self.reason = _EVERY_SECONDS, ""
            except Exception as error:
                if not isinstance(error, NotYetError):
                    self.delivery = None
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        """Print why MLflow does not take the journals, once for a row of failures, and wake up `drain`."""
        if not (self.reason or isinstance(error, NotYetError)):
            print(f"MLflow {self._uri}: {one_line(error)}; the work goes on", file=sys.stderr, flush=True)
        self.reason = one_line(error)
        with self._done:
            self._failures += 1
            self._done.notify_all()

    def _round(self) -> None:
        """Send what is pending. Raises `NotYetError` after the last journal if one refers to a run not sent yet."""
        not_yet = None
        with self._sending:
            for journal in [journal for journal in self._journals if journal.pending]:
                delivery = self._connected()
                try:
                    delivery.send(journal)
                except NotYetError as error:
                    not_yet = error
                finally:
                    self._say_refused(delivery)
                with self._done:
                    self._done.notify_all()
        if not_yet:
            raise not_yet

    @staticmethod
    def _say_refused(delivery: Delivery) -> None:
        while delivery.refused:
            print(delivery.refused.pop(0), file=sys.stderr, flush=True)

    def _connected(self) -> Delivery:
        if self.delivery is None:
            self.delivery = self._connect()
        return self.delivery
