"""A rank other than 0: it computes what rank 0 asks for, until rank 0 lets it end.

python -m pipeline.ranks.follower HOST PORT RANK      started by rank 0; with a launcher, the command itself follows
"""

import os
import platform
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Final, NoReturn

import numpy as np
import psutil

from ..config.schema.model import ModelConfig
from ..config.schema.train import TrainConfig
from ..core.errors import RankLostError, UserError
from ..models import backend
from ..models.architecture import Architecture
from ..models.backend import Classifier
from ..models.share import Share
from .connection import JOIN_SECONDS, Message, connect, free_port, receive, send
from .launch import Launch
from .packing import digest, plan_of, state_of

_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def follow(launched: Launch) -> NoReturn:
    """Follow rank 0, as a process that a launcher started."""
    _follow(launched.host, launched.port, launched.rank, launched.token)


def _follow(host: str, port: int, rank: int, token: str) -> NoReturn:
    facts = {"rank": rank, "token": token, "host": platform.node(), "pid": os.getpid(), "port": free_port()}
    try:
        work, life = (_join(host, port, facts | {"kind": kind}) for kind in ("work", "life"))
    except (OSError, EOFError) as error:
        raise RankLostError(f"rank {rank}: rank 0 cannot be reached at {host}:{port}: {error}") from error
    _heed_signals(life)
    threading.Thread(target=_end_with, args=(life, rank), name="rank-0", daemon=True).start()
    _Follower(rank, work).serve()


def _join(host: str, port: int, facts: dict[str, Any]) -> Connection:
    connection = connect(host, port, JOIN_SECONDS)
    send(connection, Message("hello", facts))
    answer = receive(connection)
    if answer.name != "welcome":
        raise UserError(f"rank 0 at {host}:{port} is of {answer.facts['text']}; allowed: the same in all ranks")
    return connection


def _heed_signals(life: Connection) -> None:
    """Leave it to rank 0 to end: it needs this rank until its checkpoint is saved. Ctrl-C reaches rank 0 by itself."""

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(OSError):
            send(life, Message("signal", {"number": number}))

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)


def _end_with(life: Connection, rank: int) -> NoReturn:
    """Tell rank 0 of this machine if it asks for that; end this process at once when rank 0 is gone."""
    seconds: float | None = None
    with suppress(EOFError, OSError, ValueError):
        while True:
            if life.poll(seconds):
                seconds = receive(life).facts["seconds"]
            else:
                send(life, Message("machine", _use_of_machine(rank)))
    os._exit(1)


def _use_of_machine(rank: int) -> dict[str, float]:
    """Return the use of this machine since the last call, as MLflow names it for a node."""
    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
    }
    return {f"system/rank_{rank}/{name}": value for name, value in values.items()}


class _Follower:
    def __init__(self, rank: int, work: Connection) -> None:
        self._rank, self._work = rank, work
        self._classifier: Classifier

    def serve(self) -> NoReturn:
        """Answer every call. An error ends this rank, as the others have gone on without it."""
        while True:
            try:
                message = receive(self._work)
            except (EOFError, OSError):
                os._exit(1)
            if message.name == "end":
                os._exit(0)  # nothing is left to do, and a framework's own end takes a second
            try:
                answer = getattr(self, f"_{message.name}")(message)
            except UserError as error:
                answer = Message("mistake", {"text": str(error)})
            except Exception as error:
                traceback.print_exc()
                answer = Message("error", {"text": f"{type(error).__name__}: {error}".splitlines()[0]})
            with suppress(OSError):
                send(self._work, answer)
            if answer.name == "error":
                os._exit(1)

    def _create(self, message: Message) -> Message:
        facts = message.facts
        shape, classes = tuple(facts["image_shape"]), facts["classes"]
        moments = tuple(facts["channel_mean"]), tuple(facts["channel_std"])
        architecture = Architecture(ModelConfig.model_validate(facts["model"]), shape, classes, *moments)
        train = TrainConfig.model_validate(facts["train"])
        share = Share(self._rank, train.world, tuple(facts["addresses"]))
        self._classifier = backend.create(facts["framework"], architecture, train, share)
        device = self._classifier.device
        return Message(
            "done",
            {
                "device": {"type": device.type, "name": device.name, "threads": device.threads},
                "execution": self._classifier.execution,
            },
        )

    def _load_training_data(self, message: Message) -> Message:
        self._classifier.load_training_data(message.arrays["images"], message.arrays["labels"])
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
    from .group import TOKEN

    @command
    def _main(arguments: Any) -> None:
        host, port, rank = arguments
        _follow(host, int(port), int(rank), os.environ[TOKEN])

    _main(sys.argv[1:])
