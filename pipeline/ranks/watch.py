"""What becomes of the other ranks, as rank 0 sees it: who is gone, who hangs, who failed, who refused, and why."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Final, NoReturn

from ..core.errors import RankLostError, UserError
from .connection import ALIVE_SECONDS, SILENT_SECONDS, Message, receive, send
from .joining import Member, in_words

NOTICE_SECONDS: Final = 5.0
"""How long after an error of a collective the loss of a rank may be noticed."""
_SUSPECT_SECONDS: Final = 8.0
"""After how long a rank that says nothing is taken for the reason of an error: TensorFlow waits 10 s for it."""
_SETTLE_SECONDS: Final = 0.3
"""How long the others of several losses may take to be noticed."""
_STUCK_SECONDS: Final = 5.0
"""How long a collective may go on after the loss of a rank."""


class Watch:
    """Listens to the other ranks in a thread of its own, until the end of the process."""

    def __init__(self, members: Sequence[Member], started: Sequence["subprocess.Popen[bytes]"]) -> None:
        self._members, self._started = members, started
        self._gone: list[Member] = []
        self._silent: dict[int, float] = {}
        self._allowed_silence = SILENT_SECONDS
        self._failed: dict[int, Message] = {}
        self._refused: dict[int, Message] = {}
        self._noticed = threading.Event()
        self.log: Callable[[dict[str, float]], None] | None = None
        """Gets the use of other ranks' machines."""
        self.call = ""
        """What is computed together at present; empty: nothing."""
        self.closing = False
        """Whether the others have been let go."""
        threading.Thread(target=self._listen, name="ranks", daemon=True).start()

    def require_all(self) -> None:
        """Raise `RankLostError` or `UserError` if another rank is lost already: one that hangs would never answer."""
        if self._noticed.is_set():
            raise self._reason()

    def explain(self, error: Exception) -> None:
        """Raise `RankLostError` or `UserError` if another rank is the reason for an error here."""
        if not self._noticed.wait(NOTICE_SECONDS / 2):
            self._allowed_silence = _SUSPECT_SECONDS
        if self._noticed.wait(NOTICE_SECONDS / 2):
            time.sleep(_SETTLE_SECONDS)
            raise self._reason() from error

    def _reason(self) -> UserError | RankLostError:
        """Return what has happened first: a rank that is just gone makes the others fail."""
        gone = [member for member in self._gone if member.rank not in self._failed.keys() | self._refused.keys()]
        if gone:
            named = "; ".join(f"{member.name} {self._end_of(member)}" for member in gone)
        elif self._refused:
            rank, said = next(iter(self._refused.items()))
            return UserError(f"{self._members[rank - 1].name}: {said.facts['reason']}")
        else:
            rank, said = next(iter(self._failed.items()))
            print(said.facts["traceback"], end="", file=sys.stderr)
            named = f"{self._members[rank - 1].name} failed: {said.facts['reason']}"
        return RankLostError(
            f"{named}, during {self.call or 'the work of rank 0'}; the other ranks are ended. "
            "The same command continues from the last checkpoint"
        )

    def _end_of(self, member: Member) -> str:
        if member.rank in self._silent:
            return f"has said nothing for {self._silent[member.rank]:.0f} s: it hangs, or its machine is gone"
        if not self._started:
            return "is gone"
        with suppress(subprocess.TimeoutExpired):
            return in_words(self._started[member.rank - 1].wait(1))
        return "is gone"

    def _listen(self) -> None:
        alive = {member.life: member for member in self._members}
        silence = dict.fromkeys(alive, 0.0)
        before = due = time.monotonic()
        while alive:
            ready = wait([*alive], 1.0)
            if time.monotonic() > due:
                due = time.monotonic() + ALIVE_SECONDS
                self._tell_alive(alive)
            # time in which this process itself stood still does not count
            passed, before = min(time.monotonic() - before, 2.0), time.monotonic()
            for connection, member in tuple(alive.items()):
                silence[connection] = 0.0 if connection in ready else silence[connection] + passed
                if silence[connection] > self._allowed_silence:
                    self._silent[member.rank] = silence[connection]
                    for process in self._started[member.rank - 1 : member.rank]:
                        process.kill()  # so that what waits for it ends
                elif connection not in ready or self._heard(connection, member):
                    continue
                del alive[connection]
                self._gone.append(member)
                self._notice()

    @staticmethod
    def _tell_alive(connections: Iterable[Connection]) -> None:
        for connection in connections:
            with suppress(OSError):
                send(connection, Message("alive"))

    def _heard(self, connection: Connection, member: Member) -> bool:
        """Do what a rank asks for unasked; return False if it is gone."""
        try:
            said = receive(connection)
        except (EOFError, OSError, ValueError):
            return False
        if said.name == "signal":
            os.kill(os.getpid(), int(said.facts["number"]))
        elif said.name == "machine" and self.log:
            self.log(dict(said.facts))
        elif said.name in ("failed", "refused"):
            (self._failed if said.name == "failed" else self._refused)[member.rank] = said
            self._notice()
        return True

    def _notice(self) -> None:
        if not self.closing:
            self._noticed.set()
            threading.Thread(target=self._end_if_stuck, name="ranks-end", daemon=True).start()

    def _end_if_stuck(self) -> None:
        """End this process if a collective waits for the lost rank for ever. What is saved and logged stays."""
        time.sleep(_STUCK_SECONDS)
        if self.call and not self.closing:
            self._end()

    def _end(self) -> NoReturn:
        reason = self._reason()
        print(f"error: {reason}", file=sys.stderr, flush=True)
        for process in self._started:  # one that hangs would stay
            process.kill()
        os._exit(2 if isinstance(reason, UserError) else 1)
