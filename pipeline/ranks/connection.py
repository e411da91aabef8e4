"""The connection between rank 0 and another rank: messages of JSON and arrays. It carries no code, and no pickle."""

import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
from safetensors import numpy as safetensors

JOIN_SECONDS: Final = 600.0
"""How long a rank waits until the others are there."""
ALIVE_SECONDS: Final = 5.0
"""How often a rank tells another that it is alive, though it has nothing to say."""
SILENT_SECONDS: Final = 60.0
"""After how long a rank that says nothing is taken for lost: while it imports a framework it may say nothing."""
_TELL_SECONDS: Final = 10.0
_TELL_AGAIN_SECONDS: Final = 60.0
_HELLO_SECONDS: Final = 3.0
_TIME: Final = struct.Struct("@ll")  # struct timeval
_LENGTH: Final = struct.Struct("<Q")
_KEEP_ALIVE: Final = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 4}
"""Seconds, and a number of tries, after which a machine that says nothing more is taken for gone."""


@dataclass(frozen=True)
class Message:
    """What one rank tells another."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Values that JSON can hold."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def packed(self) -> bytes:
        """Return the message as bytes: the length of its head, its head as JSON, its arrays."""
        head = json.dumps({"name": self.name, "facts": self.facts}).encode()
        arrays = {name: np.asarray(value, order="C") for name, value in self.arrays.items()}
        return b"".join((_LENGTH.pack(len(head)), head, safetensors.save(arrays)))

    @classmethod
    def unpacked(cls, content: bytes) -> "Message":
        """Return the message of these bytes. Raises ValueError if they hold none."""
        try:
            (length,) = _LENGTH.unpack_from(content)
            head = json.loads(content[_LENGTH.size : _LENGTH.size + length])
            return cls(head["name"], head["facts"], safetensors.load(content[_LENGTH.size + length :]))
        except Exception as error:  # of struct, json and safetensors
            raise ValueError(f"not a message of a rank: {error}") from error


def send(connection: Connection, message: Message) -> None:
    """Send a message. Raises OSError if the other rank is gone."""
    connection.send_bytes(message.packed())


def receive(connection: Connection) -> Message:
    """Wait for a message and return it. Raises EOFError or OSError if the other rank is gone."""
    return Message.unpacked(connection.recv_bytes())


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that waits for connections. Raises OSError."""
    return socket.create_server((host, port), backlog=128)


def accept(server: socket.socket, seconds: float) -> tuple[Connection, str]:
    """Wait for a connection; return it, and the host that it is from. Raises TimeoutError.

    Who has connected must speak within seconds, as not all who look at a port have something to say: `wait_at_most`.
    """
    server.settimeout(seconds)
    there, address = server.accept()
    there.settimeout(None)
    connection = _connection(there)
    wait_at_most(connection, _HELLO_SECONDS)
    return connection, str(address[0])


def wait_at_most(connection: Connection, seconds: float | None) -> None:
    """Have `receive` raise OSError if nothing comes for so many seconds; None: it waits for ever."""
    whole = int(seconds or 0)
    with socket.socket(fileno=os.dup(connection.fileno())) as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(whole, int(((seconds or 0) - whole) * 1e6)))


class Patience:
    """Waits for other ranks to join, at most `JOIN_SECONDS`, and says so: at first after a while."""

    def __init__(self) -> None:
        now = time.monotonic()
        self._end, self._tell = now + JOIN_SECONDS, now + _TELL_SECONDS

    def lasts(self, text: str) -> bool:
        """Return whether there is time left; print `text`, what is waited for, if it is due."""
        now = time.monotonic()
        if now > self._tell:
            self._tell += _TELL_AGAIN_SECONDS
            print(f"{text}, for {max(0.0, self._end - now):.0f} s more at most", flush=True)
        return now < self._end


def connect(host: str, port: int, what: str) -> Connection:
    """Connect, as often as it takes until the other rank listens; `what` is printed meanwhile.

    Raises OSError after `JOIN_SECONDS`.
    """
    patience = Patience()
    while True:
        try:
            there = socket.create_connection((host, port), timeout=10)
            there.settimeout(None)
            return _connection(there)
        except OSError as error:
            if not patience.lasts(f"{what} ({error.strerror or error})"):
                raise
            time.sleep(0.1)


def _connection(there: socket.socket) -> Connection:
    there.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in _KEEP_ALIVE.items():
        there.setsockopt(socket.IPPROTO_TCP, option, value)
    return Connection(there.detach())


def free_port(host: str = "") -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
