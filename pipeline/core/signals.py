"""Handling of SIGINT, SIGTERM and their like: end the process at once, or after the step that must not be interrupted.

Like SIGTERM are SIGHUP (the terminal was closed), and SIGUSR1 and SIGUSR2, with which Slurm warns of a time limit
(`--signal`): their default would end a training without a checkpoint.
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar, Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIKE_TERM: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_REPEAT_SECONDS: Final = 5.0  # Ctrl-C reaches the whole process group, and the parent then also sends SIGTERM


class _Signals:
    delayed: ClassVar[int] = 0
    arrived: ClassVar[int | None] = None
    ended: ClassVar[float] = -_REPEAT_SECONDS


def end_on_signals() -> None:
    """Raise `SystemExit` on SIGTERM and its like, and `KeyboardInterrupt` on SIGINT: open runs and files are closed.

    A DVC stage also ends when its `dvc` process ends. What is ignored, as SIGHUP is under `nohup`, stays ignored.
    """
    for number in _LIKE_TERM:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    signal.signal(signal.SIGINT, _handle)
    if os.environ.get("DVC_STAGE"):
        end_with_parent()


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, so that no training outlives its sweep."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before the call
        raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay SIGINT, SIGTERM and its like until the body ends; an error of the body takes precedence.

    Within another of these, until the outer one ends.
    """
    _Signals.delayed += 1
    try:
        yield
    finally:
        _Signals.delayed -= 1
    if not _Signals.delayed:
        end_if_interrupted()


def interrupted() -> bool:
    """Return whether a signal waits for the end of `uninterrupted`."""
    return _Signals.arrived is not None


def end_if_interrupted() -> None:
    """End by the signal that waits, if one does: in `uninterrupted`, where nothing more can be lost."""
    number, _Signals.arrived = _Signals.arrived, None
    if number is not None:
        _end(number)


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Put the handlers of these signals back after the body, in which a library may set its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *_LIKE_TERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _handle(number: int, _: FrameType | None) -> None:
    if _Signals.delayed:
        _Signals.arrived = number
    else:
        _end(number)


def _end(number: int) -> None:
    if time.monotonic() - _Signals.ended < _REPEAT_SECONDS:  # the process is already ending
        return
    _Signals.ended = time.monotonic()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signal.SIGTERM)
