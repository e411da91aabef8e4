"""How a command ends: one exit code for each kind of end, and one message without a traceback for an expected error.

Exit codes: 0 done, 1 failed, 2 mistake of the user, 3 another process already does the same, 130 and 143 interrupted
(SIGINT, SIGTERM).
"""

import atexit
import codecs
import errno
import functools
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

from .errors import BusyError, RankLostError, ResultError, UserError
from .files import in_the_way, write_json
from .redaction import redacted

FAILED: Final = 1
MISTAKE: Final = 2
BUSY: Final = 3
INTERRUPTED: Final = 130
TERMINATED: Final = 143
_DISK_ERRORS: Final = (  # the user can correct these
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
)

_PLAIN: Final = {"\u00b1": "+-", "\u2212": "-", "\u00d7": "x", "\u2192": "->", "\u2190": "<-", "\u2026": "..."}


def print_anything() -> None:
    """Let standard output take every character, also where its encoding lacks it, as ASCII does.

    Standard error does so by itself. A character without a spelling in `_PLAIN` becomes its escape, and so does a byte
    of a name that is not UTF-8.
    """
    codecs.register_error("plain", _spell)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plain")


def _keep_settings_from_libraries() -> None:
    """Replace settings of the environment under which libraries that are imported later would raise."""
    try:
        Path.home()
    except RuntimeError:  # no HOME, and no such user, as in a container with a user id of its own
        os.environ["HOME"] = tempfile.mkdtemp(prefix="home-")
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
    os.environ["MPLBACKEND"] = "agg"  # MLflow imports matplotlib, which refuses a backend that it does not know
    if any(option.startswith("error") for option in sys.warnoptions):  # TensorFlow and MLflow warn during import
        warnings.filters[:] = [entry for entry in warnings.filters if entry[0] != "error"]  # type: ignore[index]
        warnings.simplefilter("ignore", DeprecationWarning)


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode(), error.start + 1


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn an error of the body into a message on stderr and `SystemExit` with its exit code.

    A file, or a link that leads nowhere, where a folder is needed is the user's mistake, too. Errors that are neither
    the user's, a result's nor the disk's pass through with their traceback. What is printed from then on fits every
    encoding, see `print_anything`.
    """
    print_anything()
    _keep_settings_from_libraries()
    try:
        yield
    except UserError as error:
        _end(f"error: {error}", MISTAKE)
    except (ResultError, RankLostError) as error:
        _end(f"error: {error}", FAILED)
    except BusyError as error:
        _end(f"error: {error}", BUSY)
    except BrokenPipeError:  # the reader of stdout, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if blocked := _blocked(error):
            _end(f"error: {blocked}: is no folder, and one is needed there; move it away", MISTAKE)
        if error.errno not in _DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _end(f"error: {where}{error.strerror}; fix that, then run the same command to continue", FAILED)
    except KeyboardInterrupt as error:
        _end("interrupted", getattr(error, "code", INTERRUPTED))  # of a job, its own


def _blocked(error: OSError) -> Path | None:
    """Return the file, or the link that leads nowhere, that stood in place of a folder; None: something else failed."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    path = Path(os.fsdecode(error.filename))
    if isinstance(error, FileExistsError):  # of `mkdir`
        return in_the_way(path)
    return in_the_way(path.parent) if isinstance(error, NotADirectoryError | FileNotFoundError) else None


def _end(message: str, code: int) -> NoReturn:
    print(redacted(message), file=sys.stderr)
    _tell_torchrun(redacted(message))
    raise SystemExit(code) from None


def _tell_torchrun(message: str) -> None:
    """Leave the message where torchrun looks for the reason of a failure, which it prints at the end.

    The form is that of `torch.distributed.elastic.multiprocessing.errors.ErrorHandler`.
    """
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        details = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            write_json(Path(path), {"message": {"message": message, "extraInfo": details}})


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))


def command(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    """Decorate the `main` of a command so that it runs within `exit_codes`; a traceback shows no secrets."""

    @functools.wraps(main)
    def wrapper(arguments: Sequence[str]) -> None:
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _print_traceback
        with exit_codes():
            main(arguments)

    return wrapper
