"""The thread that brings this process's journals to MLflow, while training goes on."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .delivery import Delivery, NotYetError
from .journal import Journal
from .outbox import left_behind, send_left, short

_EVERY_SECONDS: Final = 3.0  # MLflow's cost is per call, 8 to 20 ms, not per metric
_LONGEST_PAUSE: Final = 30.0
_STUCK_SECONDS: Final = 60.0  # SQLite waits 20 s for its lock; a call to a server that says nothing ends sooner


class Sender:
    """Of one process to one store."""

    def __init__(self, root: Path, uri: str, connect: Callable[[], Delivery]) -> None:
        """`connect` raises where the store does not answer."""
        self._root, self._uri, self._connect = root, uri, connect
        self.delivery: Delivery | None = None
        """None: connected to when there is something to send."""
        self._mine: list[Journal] = []
        self._wake, self._done, self._sending = threading.Event(), threading.Condition(), threading.Lock()
        self._failures = 0
        self._thread: threading.Thread | None = None
        self.reason = ""
        """Why MLflow did not take what waits; empty where it does."""

    def add(self, journal: Journal) -> None:
        """From now on, send what is added to this one."""
        self._mine = [*self._mine, journal]
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal to MLflow", daemon=True)
            self._thread.start()

    def drain(self, seconds: float = _STUCK_SECONDS) -> bool:
        """Wait until MLflow has everything; False where it does not take it now, or for so long nothing moves."""
        if self._thread is None:
            return True
        with self._done:
            failures, moved, left = self._failures, time.monotonic(), self._pending()
            self._wake.set()
            while left and self._failures == failures and time.monotonic() - moved < seconds:
                self._done.wait(0.2)
                self._wake.set()
                if (now := self._pending()) != left:
                    left, moved = now, time.monotonic()
        self.finish()
        return not left

    def _pending(self) -> int:
        return sum(journal.pending for journal in self._mine)

    def finish(self) -> None:
        """Let go of the journals of which nothing is needed any longer."""
        if self._sending.acquire(timeout=1):  # else it is with a server that says nothing
            self._mine = [journal for journal in self._mine if not journal.finish()]
            self._sending.release()

    def close(self) -> None:
        """Let other processes have the journals."""
        with self._sending:
            for journal in self._mine:
                journal.close()
            self._mine = []

    def _run(self) -> None:
        pause, others = _EVERY_SECONDS, left_behind(self._root)
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                if others:  # left behind by earlier processes
                    delivery = self._connected()
                    send_left(delivery, others, delivery.store)
                    others = []
                self._round()
                pause, self.reason = _EVERY_SECONDS, ""
            except Exception as error:
                if not isinstance(error, NotYetError):
                    self.delivery = None
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    if not self.reason:
                        print(f"MLflow {self._uri}: {short(error)}; the work goes on", file=sys.stderr, flush=True)
                self.reason = short(error)
                with self._done:
                    self._failures += 1
                    self._done.notify_all()

    def _round(self) -> None:
        not_yet = None
        with self._sending:
            for journal in [journal for journal in self._mine if journal.pending]:
                delivery = self._connected()
                try:
                    delivery.send(journal)
                except NotYetError as error:
                    not_yet = error
                finally:
                    while delivery.refused:
                        print(f"MLflow refused {delivery.refused.pop(0)}", file=sys.stderr, flush=True)
                with self._done:
                    self._done.notify_all()
        if not_yet:
            raise not_yet

    def _connected(self) -> Delivery:
        if self.delivery is None:
            self.delivery = self._connect()
        return self.delivery
