"""SIGINT and SIGTERM: they end a process where it stands, or, while a step may not be cut, right after it."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar, Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_AGAIN_SECONDS: Final = 5.0  # Ctrl-C reaches a whole group of processes, and the first one also ends the others


class _Signals:
    delayed: ClassVar[bool] = False
    arrived: ClassVar[int | None] = None
    ended: ClassVar[float] = -_AGAIN_SECONDS


def end_on_signals() -> None:
    """Turn SIGTERM into `SystemExit` and SIGINT into `KeyboardInterrupt`, so that open runs and files are closed.

    A stage of DVC also ends when `dvc` does.
    """
    signal.signal(signal.SIGTERM, _handle)
    signal.signal(signal.SIGINT, _handle)
    if os.environ.get("DVC_STAGE"):
        end_with_parent()


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that started it ends: no training without its sweep or `dvc`."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended just before
        raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay both signals until the body ends; an error of the body goes first."""
    _Signals.delayed = True
    try:
        yield
    finally:
        _Signals.delayed = False
    number, _Signals.arrived = _Signals.arrived, None
    if number is not None:
        _end(number)


def _handle(number: int, _: FrameType | None) -> None:
    if _Signals.delayed:
        _Signals.arrived = number
    else:
        _end(number)


def _end(number: int) -> None:
    if time.monotonic() - _Signals.ended < _AGAIN_SECONDS:  # it is on its way out
        return
    _Signals.ended = time.monotonic()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
