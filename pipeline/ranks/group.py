"""The group of ranks as rank 0 has it: starts or awaits the others, passes calls on, and notices who is gone."""

import atexit
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar, Final, TypeVar

from ..core.errors import RankLostError, UserError
from ..core.machine import usable_cores
from . import launch
from .connection import JOIN_SECONDS, Message, accept, free_port, listen, receive, send
from .launch import Launch

TOKEN: Final = "PIPELINE_RANKS_TOKEN"
"""Variable by which a rank that rank 0 has started shows that it belongs there."""
_TELL_SECONDS: Final = 10.0
_NOTICE_SECONDS: Final = 5.0
"""How long after an error of a collective the loss of a rank may be noticed."""
_STUCK_SECONDS: Final = 15.0
"""How long a collective may go on after the loss of a rank."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Member:
    """Another rank."""

    rank: int
    host: str
    pid: int
    address: str
    """`host:port`, free for the collectives."""
    work: Connection
    """For calls and their results."""
    life: Connection
    """For what it says unasked; closed when it ends."""

    @property
    def name(self) -> str:
        """`rank 1 (node7, process 4711)`."""
        return f"rank {self.rank} ({self.host}, process {self.pid})"


class Group:
    """All ranks of this process' trainings. A process has one group for its whole life: frameworks allow no other."""

    _opened: ClassVar["Group | None"] = None

    def __init__(
        self, members: Sequence[Member], launched: Launch | None, started: Sequence["subprocess.Popen[bytes]"]
    ):
        self.members, self._launched, self._started = members, launched, started
        host = launched.host if launched else "127.0.0.1"
        own = f"{host}:{free_port()}"
        given = launched.addresses if launched else ()
        self.addresses = given or (own, *(member.address for member in members))
        self._busy, self._closing = False, False
        self._lost: list[Member] = []
        self._noticed = threading.Event()
        self._log: Callable[[dict[str, float]], None] | None = None
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        atexit.register(self.close)

    @classmethod
    def of(cls, world: int) -> "Group":
        """Return the group of this process; start or await its ranks at the first call.

        Raises `UserError` if it has another size, or if a launcher started another number of ranks.
        """
        if cls._opened is None:
            launched = launch.found()
            if launched and launched.world != world:
                raise launch.other_world(world, launched)
            cls._opened = _join(launched) if launched else _start(world)
        if len(cls._opened.members) + 1 != world:
            raise UserError(f"train.world = {world}: this process already has {len(cls._opened.members) + 1} ranks")
        return cls._opened

    @property
    def world(self) -> int:
        """Number of ranks, this one included."""
        return len(self.members) + 1

    @property
    def threads(self) -> int:
        """Threads for each rank if the configuration names no number: its share of the cores."""
        sharing = self._launched.on_this_machine if self._launched else self.world
        return max(1, usable_cores() // sharing)

    def described(self, devices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what is known of each rank; `devices`: one for each rank."""
        places = [(platform.node(), os.getpid()), *((member.host, member.pid) for member in self.members)]
        return [
            {"rank": rank, "host": host, "process": pid, "device": dict(device)}
            for rank, ((host, pid), device) in enumerate(zip(places, devices, strict=True))
        ]

    def watch_machines(self, seconds: float | None, log: Callable[[dict[str, float]], None] | None) -> None:
        """Have the other ranks tell the use of their machines every `seconds`; `log` gets it, as MLflow names it."""
        self._log = log
        for member in self.members:
            with suppress(OSError):
                send(member.life, Message("watch", {"seconds": seconds}))

    def call(self, message: Message, here: Callable[[], Result]) -> tuple[Result, list[Message]]:
        """Have all ranks do the same: send the message, call `here`, and return its result and the others' answers.

        Raises `RankLostError` if a rank is gone or failed, and what `here` raises.
        """
        self._busy = True
        try:
            content = message.packed()
            for member in self.members:
                member.work.send_bytes(content)
            result = here()
            answers = [receive(member.work) for member in self.members]
        except (UserError, RankLostError):
            raise
        except Exception as error:
            self._explain(message.name, error)
            raise
        finally:
            self._busy = False
        for member, answer in zip(self.members, answers, strict=True):
            _require_done(member, message.name, answer)
        return result, answers

    def _explain(self, call: str, error: Exception) -> None:
        """Raise `RankLostError` if another rank is the reason for an error here."""
        self._noticed.wait(_NOTICE_SECONDS)
        for member in self.members:
            with suppress(EOFError, OSError, ValueError):
                while member.work.poll():
                    _require_done(member, call, receive(member.work))
        if self._lost:
            raise RankLostError(self._said(call)) from error

    def _said(self, call: str) -> str:
        lost = "; ".join(f"{member.name} {self._end_of(member)}" for member in self._lost)
        return f"{lost}, during {call}; the other ranks are ended. The same command continues from the last checkpoint"

    def _end_of(self, member: Member) -> str:
        if not self._started:
            return "is gone"
        with suppress(subprocess.TimeoutExpired):
            code = self._started[member.rank - 1].wait(1)
            return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return "is gone"

    def _watch(self) -> None:
        """Notice who is gone, and do what a rank asks for unasked."""
        alive = {member.life: member for member in self.members}
        while alive:
            for connection in wait([*alive]):
                assert isinstance(connection, Connection)
                member = alive[connection]
                try:
                    self._heed(receive(connection))
                except (EOFError, OSError, ValueError):
                    del alive[connection]
                    if not self._closing:
                        self._lost.append(member)
                        self._noticed.set()
                        threading.Thread(target=self._end_if_stuck, name="ranks-end", daemon=True).start()

    def _heed(self, said: Message) -> None:
        if said.name == "signal":
            os.kill(os.getpid(), int(said.facts["number"]))
        elif said.name == "machine" and self._log:
            self._log(dict(said.facts))

    def _end_if_stuck(self) -> None:
        """End this process if a collective waits for the lost rank for ever. What is saved and logged stays."""
        time.sleep(_STUCK_SECONDS)
        if self._busy and not self._closing:
            print(f"error: {self._said('an exchange')}", file=sys.stderr, flush=True)
            os._exit(1)

    def close(self) -> None:
        """Let the other ranks end, which have nothing to keep."""
        if self._closing:
            return
        self._closing = True
        for member in self.members:
            with suppress(OSError):
                send(member.work, Message("end"))
        for process in self._started:
            try:
                process.wait(_NOTICE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _require_done(member: Member, call: str, answer: Message) -> None:
    if answer.name == "mistake":
        raise UserError(f"{member.name}: {answer.facts['text']}")
    if answer.name == "error":
        raise RankLostError(f"{member.name} failed during {call}: {answer.facts['text']}")


def _start(world: int) -> Group:
    """Start the other ranks on this machine."""
    token = secrets.token_hex(16)
    with listen("127.0.0.1", 0) as server:
        port = str(server.getsockname()[1])
        environment = {**os.environ, TOKEN: token}
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.ranks.follower", "127.0.0.1", port, str(rank)],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
            for rank in range(1, world)
        ]
        try:
            members = _await(server, world, token, started)
        except BaseException:
            for process in started:
                process.kill()
            raise
    return Group(members, None, started)


def _join(launched: Launch) -> Group:
    """Await the other ranks, which a launcher has started."""
    if launched.rank != 0:
        raise ValueError("only rank 0 leads")
    host = "127.0.0.1" if launched.host in ("127.0.0.1", "localhost") else ""
    try:
        server = listen(host, launched.port)
    except OSError as error:
        raise UserError(
            f"port {launched.port}: {error.strerror or error}; rank 0 waits there for the others: give "
            f"{launched.launcher} another port"
        ) from error
    with server:
        return Group(_await(server, launched.world, launched.token, ()), launched, ())


def _await(server: socket.socket, world: int, token: str, started: Sequence["subprocess.Popen[bytes]"]) -> list[Member]:
    """Return the other ranks, in order, when all have connected twice: for work, and for life."""
    greeted: dict[int, dict[str, tuple[Connection, Message, str]]] = {rank: {} for rank in range(1, world)}
    began, told = time.monotonic(), False
    while missing := [rank for rank, connections in greeted.items() if len(connections) < 2]:
        for rank, process in enumerate(started, 1):
            if process.poll() is not None:
                raise RankLostError(f"rank {rank} ended with code {process.returncode} before it joined")
        waited, listed = time.monotonic() - began, ", ".join(map(str, missing))
        if waited > JOIN_SECONDS:
            raise RankLostError(f"ranks {listed} of {world} have not joined within {JOIN_SECONDS:.0f} s")
        if waited > _TELL_SECONDS and not told:
            print(f"waiting for ranks {listed} of {world}", flush=True)
            told = True
        with suppress(TimeoutError):
            connection, host = accept(server, 0.5)
            _greet(greeted, connection, host, token)
    return [_member(rank, connections) for rank, connections in greeted.items()]


def _greet(
    greeted: Mapping[int, dict[str, tuple[Connection, Message, str]]], connection: Connection, host: str, token: str
) -> None:
    """Note who has connected; turn away who does not belong here."""
    try:
        hello = receive(connection)
        rank, kind, shown = int(hello.facts["rank"]), str(hello.facts["kind"]), str(hello.facts["token"])
    except (EOFError, OSError, ValueError, KeyError):
        connection.close()
        return
    if not secrets.compare_digest(shown, token):
        with suppress(OSError):
            send(connection, Message("refused", {"text": "another training, or another version of the code"}))
        connection.close()
        return
    if rank in greeted and kind not in greeted[rank]:
        greeted[rank][kind] = connection, hello, host
        send(connection, Message("welcome"))


def _member(rank: int, connections: Mapping[str, tuple[Connection, Message, str]]) -> Member:
    work, hello, host = connections["work"]
    facts: Mapping[str, Any] = hello.facts
    address = f"{host}:{facts['port']}"
    return Member(rank, str(facts["host"]), int(facts["pid"]), address, work, connections["life"][0])
