"""A filter for the notices that TensorFlow prints during import."""

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
