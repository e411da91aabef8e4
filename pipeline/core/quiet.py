"""Filters for what others print: TensorFlow's notices, and the tracebacks of a launcher's processes."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_notices() -> Iterator[None]:
    """Drop the notices that TensorFlow writes to stderr before its log level applies.

    Everything else that the body writes to file descriptor 2 is printed when the body ends.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            notices = ("I0000", "WARNING: All log messages before absl::InitializeLog()")
            sys.stderr.writelines(line for line in caught if not line.startswith(notices))


@contextmanager
def without_interrupted_children() -> Iterator[None]:
    """Keep what processes that are started meanwhile write to stderr; print it at the end, unless interrupted.

    Ctrl-C reaches every process of the terminal, and those of a launcher answer with a traceback each. This process
    goes on to write to the terminal.
    """
    sys.stderr.flush()
    terminal, former = os.dup(2), sys.stderr
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as caught,
        os.fdopen(os.dup(terminal), "w", buffering=1, encoding=former.encoding, errors=former.errors) as own,
    ):
        os.dup2(caught.fileno(), 2)
        sys.stderr, interrupted = own, False
        try:
            yield
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            own.flush()
            sys.stderr = former
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            if not interrupted:
                sys.stderr.writelines(caught)
