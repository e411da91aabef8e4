"""The group of ranks as rank 0 has it: it passes calls on, and ends with the others."""

import atexit
import itertools
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, ClassVar, Final, TypeVar

from ..core.errors import RankLostError, UserError
from ..core.machine import usable_cores
from ..core.signals import uninterrupted
from . import launch
from .connection import Message, free_port, receive, send
from .joining import Member, join, start
from .launch import Launch
from .watch import NOTICE_SECONDS, Watch

_BEGINNING: Final = ("prepare", "create", "compile")

Result = TypeVar("Result")


class Group:
    """All ranks of this process' trainings. A process has one group for its whole life: frameworks allow no other."""

    _opened: ClassVar["Group | None"] = None

    def __init__(
        self, members: Sequence[Member], started: Sequence["subprocess.Popen[bytes]"], launched: Launch | None = None
    ) -> None:
        self.members, self._launched, self._started = members, launched, started
        host = launched.host if launched else "127.0.0.1"
        own = f"{host}:{free_port()}"
        given = launched.addresses if launched else ()
        self.addresses = given or (own, *(member.address for member in members))
        self._watch = Watch(members, started)
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
            cls._opened = cls(join(launched), (), launched) if launched else cls(*start(world))
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
        self._watch.log = log
        for member in self.members:
            with suppress(OSError):
                send(member.life, Message("watch", {"seconds": seconds}))

    def call(self, message: Message | Sequence[Message], here: Callable[[], Result]) -> tuple[Result, list[Message]]:
        """Have all ranks do the same: send the message, call `here`, and return its result and the others' answers.

        `message`: one for all, or one for each in the order of `members`. Raises `RankLostError` if a rank is gone or
        failed, and what `here` raises. Signals wait for its end, but not while the ranks still come together.
        """
        self._watch.require_all()
        name = message.name if isinstance(message, Message) else message[0].name
        with nullcontext() if name in _BEGINNING else uninterrupted():
            return self._call(name, message, here)

    def _call(
        self, name: str, message: Message | Sequence[Message], here: Callable[[], Result]
    ) -> tuple[Result, list[Message]]:
        self._watch.call = name
        try:
            for member, content in zip(self.members, _packed(message), strict=False):
                member.work.send_bytes(content)
            return here(), [receive(member.work) for member in self.members]
        except (UserError, RankLostError):
            raise
        except Exception as error:
            self._watch.explain(error)
            raise
        finally:
            self._watch.call = ""

    def close(self) -> None:
        """Let the other ranks end, which have nothing to keep."""
        if self._watch.closing:
            return
        self._watch.closing = True
        for member in self.members:
            with suppress(OSError):
                send(member.work, Message("end"))
        for process in self._started:
            try:
                process.wait(NOTICE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _packed(message: Message | Sequence[Message]) -> Iterable[bytes]:
    if isinstance(message, Message):
        return itertools.repeat(message.packed())
    return (each.packed() for each in message)
