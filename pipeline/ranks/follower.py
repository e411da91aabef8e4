"""A rank other than 0: it computes what rank 0 asks for, until rank 0 lets it end.

python -m pipeline.ranks.follower HOST PORT RANK      started by rank 0; with a launcher, the command itself follows
"""

import math
import os
import platform
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Final, NoReturn

import numpy as np
import psutil

from ..config.schema.model import ModelConfig
from ..config.schema.train import TrainConfig
from ..core import gpus
from ..core.errors import RankLostError, UserError
from ..models import backend
from ..models.architecture import Architecture
from ..models.backend import Classifier
from ..models.share import Share
from .connection import (
    ALIVE_SECONDS,
    SILENT_SECONDS,
    Message,
    connect,
    free_port,
    receive,
    send,
)
from .launch import Badge, Launch
from .packing import digest, plan_of, state_of

_TELLING: Final = threading.RLock()  # a signal may come while the same thread tells something
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def follow(launched: Launch) -> NoReturn:
    """Follow rank 0, as a process that a launcher started."""
    _follow(launched.host, launched.port, launched.rank, launched.local, launched.badge)


def _follow(host: str, port: int, rank: int, local: int, badge: Badge) -> NoReturn:
    gpus.use_one(local)
    facts = {"rank": rank, "badge": asdict(badge), "host": platform.node(), "pid": os.getpid(), "port": free_port()}
    try:
        work, life = (_join(host, port, facts | {"kind": kind}) for kind in ("work", "life"))
    except (OSError, EOFError) as error:
        raise RankLostError(f"rank {rank}: rank 0 cannot be reached at {host}:{port}: {error}") from error
    _heed_signals(life)
    threading.Thread(target=_end_with, args=(life, rank), name="rank-0", daemon=True).start()
    _Follower(rank, work, life).serve()


def _join(host: str, port: int, facts: dict[str, Any]) -> Connection:
    connection = connect(host, port, f"rank {facts['rank']}: waiting for rank 0 at {host}:{port}")
    send(connection, Message("hello", facts))
    answer = receive(connection)
    if answer.name != "welcome":
        raise UserError(f"rank {facts['rank']}, refused by rank 0 at {host}:{port}: {answer.facts['text']}")
    return connection


def _heed_signals(life: Connection) -> None:
    """Leave it to rank 0 to end: it needs this rank until its checkpoint is saved. Ctrl-C reaches rank 0 by itself."""

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(OSError):
            _tell(life, Message("signal", {"number": number}))

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)


def _end_with(life: Connection, rank: int) -> NoReturn:
    """Tell rank 0 that this rank is alive, and of its machine if asked; end this process when rank 0 is gone."""
    seconds = silence = 0.0
    before = alive_due = time.monotonic()
    machine_due = math.inf
    with suppress(EOFError, OSError, ValueError):
        while silence < SILENT_SECONDS:
            if time.monotonic() >= alive_due:
                alive_due = time.monotonic() + ALIVE_SECONDS
                _tell(life, Message("alive"))
            if time.monotonic() >= machine_due:
                machine_due = time.monotonic() + seconds
                _tell(life, Message("machine", _use_of_machine(rank)))
            heard = life.poll(max(0.0, min(alive_due, machine_due) - time.monotonic()))
            # time in which this process itself stood still does not count
            passed, before = min(time.monotonic() - before, 2 * ALIVE_SECONDS), time.monotonic()
            silence = 0.0 if heard else silence + passed
            if heard and (said := receive(life)).name == "watch":
                seconds = said.facts["seconds"] or 0.0
                machine_due = time.monotonic() + seconds if seconds else math.inf
                psutil.cpu_percent()  # the next one is of the time from here
    if silence >= SILENT_SECONDS:
        hangs = f"rank 0 has said nothing for {silence:.0f} s: it hangs, or its machine is gone"
        print(f"error: rank {rank}: {hangs}", file=sys.stderr, flush=True)
    os._exit(1)


def _tell(life: Connection, message: Message) -> None:
    """Tell rank 0 something unasked. Raises OSError if it is gone."""
    with _TELLING:
        send(life, message)


def _use_of_machine(rank: int) -> dict[str, float]:
    """Return the use of this machine since the last call, as MLflow names it for a node."""
    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
    } | gpus.usage()
    return {f"system/rank_{rank}/{name}": value for name, value in values.items()}


class _Follower:
    def __init__(self, rank: int, work: Connection, life: Connection) -> None:
        self._rank, self._work, self._life = rank, work, life
        self._settings: tuple[str, Architecture, TrainConfig]
        self._classifier: Classifier
        self._data: tuple[np.ndarray, np.ndarray]

    def serve(self) -> NoReturn:
        """Answer every call. An error ends this rank, and so all: the others may have gone on, and wait for it."""
        while True:
            try:
                message = receive(self._work)
            except (EOFError, OSError):
                os._exit(1)
            if message.name == "end":
                os._exit(0)  # nothing is left to do, and a framework's own end takes a second
            try:
                answer = getattr(self, f"_{message.name}")(message)
            except Exception as error:
                refused = isinstance(error, UserError)
                reason = str(error) if refused else f"{type(error).__name__}: {error}".splitlines()[0]
                facts = {"reason": reason, "traceback": "" if refused else traceback.format_exc()}
                with suppress(OSError):
                    _tell(self._life, Message("refused" if refused else "failed", facts))
                os._exit(2 if refused else 1)
            with suppress(OSError):
                send(self._work, answer)

    def _prepare(self, message: Message) -> Message:
        facts = message.facts
        shape, classes = tuple(facts["image_shape"]), facts["classes"]
        moments = tuple(facts["channel_mean"]), tuple(facts["channel_std"])
        architecture = Architecture(ModelConfig.model_validate(facts["model"]), shape, classes, *moments)
        self._settings = facts["framework"], architecture, TrainConfig.model_validate(facts["train"])
        backend.implementation(*self._settings)
        return Message("done")

    def _create(self, message: Message) -> Message:
        share = Share(self._rank, self._settings[2].world, tuple(message.facts["addresses"]))
        self._classifier = backend.create(*self._settings, share)
        device = self._classifier.device
        return Message(
            "done",
            {
                "device": {"type": device.type, "name": device.name, "threads": device.threads},
                "execution": self._classifier.execution,
            },
        )

    def _load_training_data(self, message: Message) -> Message:
        shape = tuple(message.facts["shape"])
        self._data = np.zeros(shape, np.uint8), np.zeros(shape[0], np.int64)
        self._classifier.load_training_data(*self._data)
        return Message("done")

    def _rows(self, message: Message) -> Message:
        for array, name in zip(self._data, ("images", "labels"), strict=True):
            array[message.arrays["rows"]] = message.arrays[name]
        self._classifier.load_training_data(*self._data)
        return Message("done")

    def _compile(self, message: Message) -> Message:
        self._classifier.compile(message.facts["sizes"])
        return Message("done")

    def _train_epoch(self, message: Message) -> Message:
        trained = self._classifier.train_epoch(plan_of(message))
        return Message("done", arrays={"loss": trained.loss, "correct": trained.correct})

    def _probe(self, message: Message) -> Message:
        probe = self._classifier.probe(plan_of(message))
        return Message("done", arrays={"outputs": probe.outputs, "loss": np.array(probe.loss)})

    def _set_weights(self, message: Message) -> Message:
        self._classifier.set_weights(state_of(message).weights)
        return Message("done")

    def _restore(self, message: Message) -> Message:
        self._classifier.restore(state_of(message))
        return Message("done")

    def _digest(self, _: Message) -> Message:
        return Message("done", {"digest": digest(self._classifier.state())})


if __name__ == "__main__":
    from ..core.exits import command
    from .joining import TOKEN

    @command
    def _main(arguments: Any) -> None:
        host, port, rank = arguments
        _follow(host, int(port), int(rank), int(rank), Badge(os.environ[TOKEN]))

    _main(sys.argv[1:])
