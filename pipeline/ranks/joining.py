"""How the ranks of one training come together: rank 0 starts or awaits the others, and turns strangers away."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from ..core.errors import RankLostError, UserError
from .connection import JOIN_SECONDS, Message, Patience, accept, listen, receive, send, wait_at_most
from .launch import Badge, Launch

TOKEN: Final = "PIPELINE_RANKS_TOKEN"
"""Variable by which a rank that rank 0 has started shows that it belongs there."""


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


def start(world: int) -> tuple[list[Member], list["subprocess.Popen[bytes]"]]:
    """Start the other ranks on this machine; return them, and their processes."""
    badge = Badge(secrets.token_hex(16))
    with listen("127.0.0.1", 0) as server:
        port = str(server.getsockname()[1])
        environment = {**os.environ, TOKEN: badge.training}
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.ranks.follower", "127.0.0.1", port, str(rank)],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
            for rank in range(1, world)
        ]
        try:
            members = _await(server, world, badge, started)
        except BaseException:
            for process in started:
                process.kill()
            raise
    return members, started


def in_words(code: int) -> str:
    """Return how a process with this exit code ended: `was ended by SIGKILL`."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def join(launched: Launch) -> list[Member]:
    """Await the other ranks, which a launcher has started. Raises `UserError` if the port is taken."""
    if launched.rank != 0:
        raise ValueError("only rank 0 leads")
    host = "127.0.0.1" if launched.host in ("127.0.0.1", "localhost") else ""
    try:
        server = listen(host, launched.port)
    except OSError as error:
        raise UserError(
            f"port {launched.port}: {os.strerror(error.errno or 0)}; rank 0 waits there for the others; allowed: "
            f"{launched.other_port}"
        ) from error
    with server:
        return _await(server, launched.world, launched.badge, ())


def _await(
    server: socket.socket, world: int, badge: Badge, started: Sequence["subprocess.Popen[bytes]"]
) -> list[Member]:
    """Return the other ranks, in order, when all have connected twice: for work, and for life."""
    greeted: dict[int, dict[str, tuple[Connection, Message, str]]] = {rank: {} for rank in range(1, world)}
    patience = Patience()
    while missing := [rank for rank, connections in greeted.items() if len(connections) < 2]:
        for rank, process in enumerate(started, 1):
            if process.poll() is not None:
                end = in_words(process.returncode)
                raise RankLostError(
                    f"rank {rank} (process {process.pid}) {end} before it joined; run the command again"
                )
        listed = ", ".join(map(str, missing))
        if not patience.lasts(f"waiting for rank {listed} of {world}"):
            raise RankLostError(f"ranks {listed} of {world} have not joined within {JOIN_SECONDS:.0f} s")
        with suppress(TimeoutError):
            connection, host = accept(server, 0.5)
            _greet(greeted, connection, host, badge)
    return [_member(rank, connections) for rank, connections in greeted.items()]


def _greet(
    greeted: Mapping[int, dict[str, tuple[Connection, Message, str]]], connection: Connection, host: str, badge: Badge
) -> None:
    """Note who has connected; turn away who is of another training.

    Raises `UserError` if a rank of this training has other arguments or other code.
    """
    try:
        hello = receive(connection)
        rank, kind = int(hello.facts["rank"]), str(hello.facts["kind"])
        shown = Badge(**{name: str(text) for name, text in hello.facts["badge"].items()})
    except (EOFError, OSError, ValueError, KeyError, TypeError, AttributeError):
        connection.close()
        return
    if not secrets.compare_digest(shown.training.encode(), badge.training.encode()):
        print(f"turned away rank {rank} at {host}: of another training", flush=True)
        _refuse(connection, "this rank is of another training")
    elif shown.work != badge.work:
        unlike = "was started with other arguments, or with another version of the code"
        _refuse(connection, f"this rank {unlike}; allowed: the same in all")
        raise UserError(f"rank {rank} at {host} {unlike}; allowed: the same in all ranks")
    elif rank in greeted and kind not in greeted[rank]:
        wait_at_most(connection, None)
        greeted[rank][kind] = connection, hello, host
        send(connection, Message("welcome"))
    else:
        _refuse(connection, f"another rank {rank} has joined already; allowed: each once")


def _refuse(connection: Connection, text: str) -> None:
    with suppress(OSError):
        send(connection, Message("refused", {"text": text}))
    connection.close()


def _member(rank: int, connections: Mapping[str, tuple[Connection, Message, str]]) -> Member:
    work, hello, host = connections["work"]
    facts: Mapping[str, Any] = hello.facts
    address = f"{host}:{facts['port']}"
    return Member(rank, str(facts["host"]), int(facts["pid"]), address, work, connections["life"][0])
