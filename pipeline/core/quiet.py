"""Filters for what others print: notices of TensorFlow and Gloo, the tracebacks of a launcher's processes."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TextIO


@contextmanager
def without_notices() -> Iterator[None]:
    """Drop the notices that TensorFlow writes to stderr before its log level applies.

    Everything else that the body writes to file descriptor 2 is printed when the body ends.
    """
    with _kept() as caught:
        try:
            with _into(caught):
                yield
        finally:
            notices = ("I0000", "WARNING: All log messages before absl::InitializeLog()")
            sys.stderr.writelines(line for line in caught if not line.startswith(notices))


@contextmanager
def without_standard_output() -> Iterator[None]:
    """Drop what the body writes to file descriptor 1: Gloo tells there how many ranks it is connected to."""
    sys.stdout.flush()
    original, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(original, 1)
        os.close(original)
        os.close(nowhere)


@contextmanager
def without_interrupted_children() -> Iterator[None]:
    """Keep what processes that are started meanwhile write to stderr; print it at the end, unless interrupted.

    Ctrl-C reaches every process of the terminal, and those of a launcher answer with a traceback each. This process
    goes on to write to the terminal.
    """
    former, interrupted = sys.stderr, False
    with _kept() as caught:
        try:
            with _into(caught) as terminal, _writing_to(terminal, former):
                yield
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            if not interrupted:
                sys.stderr.writelines(caught)


def _kept() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


@contextmanager
def _into(caught: IO[str]) -> Iterator[int]:
    """Have file descriptor 2 write to a file, which is at its start afterwards; yield a descriptor of what it was."""
    sys.stderr.flush()
    original = os.dup(2)
    os.dup2(caught.fileno(), 2)
    try:
        yield original
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
        caught.seek(0)


@contextmanager
def _writing_to(descriptor: int, like: TextIO) -> Iterator[None]:
    """Have `sys.stderr` write to a descriptor, in the encoding of the stream that it is."""
    with os.fdopen(os.dup(descriptor), "w", buffering=1, encoding=like.encoding, errors=like.errors) as own:
        sys.stderr = own
        try:
            yield
        finally:
            sys.stderr = like
