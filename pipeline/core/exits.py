"""How a command ends: one message for a mistake, an exit code for each kind of end, no traceback for a user.

Exit codes: 0 done, 1 failed, 2 a user's mistake, 3 another process does the same already, 130 and 143 interrupted
(SIGINT, SIGTERM).
"""

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from .errors import BusyError, ResultError, UserError

FAILED: Final = 1
MISTAKE: Final = 2
BUSY: Final = 3
INTERRUPTED: Final = 130
TERMINATED: Final = 143
_MENDABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # of the disk, not of ours


@contextmanager
def exit_codes() -> Iterator[None]:
    """End the process as `main` of a command ends: the error's message on stderr, and its exit code."""
    try:
        yield
    except UserError as error:
        _end(f"error: {error}", MISTAKE)
    except ResultError as error:
        _end(f"error: {error}", FAILED)
    except BusyError as error:
        _end(f"error: {error}", BUSY)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _end(f"error: {where}{error.strerror}; mend that, then run the same command: it goes on", FAILED)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)


def _end(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(code) from None


def command(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    """Decorate the `main` of a command: every error ends as `exit_codes` says."""

    @functools.wraps(main)
    def wrapper(arguments: Sequence[str]) -> None:
        with exit_codes():
            main(arguments)

    return wrapper
