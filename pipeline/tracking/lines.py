"""Files of lines to which a line is appended whole or not at all, whatever interrupts it."""

import os
from io import FileIO
from typing import Final

_BLOCK: Final = 4096  # bytes read at a time in search of the end of a line


def append_line(file: FileIO, line: bytes) -> None:
    """Append a line, which ends with a newline, to a file opened for appending. Raises OSError; the line is then gone.

    An interruption (`KeyboardInterrupt`) amid the line leaves a part that the next call cuts off.
    """
    cut_off_incomplete_line(file)
    rest = memoryview(line)
    try:
        while rest:  # a disk that becomes full takes a part, and raises at the next call
            rest = rest[file.write(rest) :]
    except OSError:
        cut_off_incomplete_line(file)
        raise


def cut_off_incomplete_line(file: FileIO) -> None:
    """Shorten the file to its last complete line: the power failed, the disk was full, or a signal came amid a line."""
    with open(file.name, "rb", buffering=0) as readable:  # noqa: PTH123 (`file.name` is what `Path.open` was given)
        complete = end_of_last_line(readable)
    if complete < os.fstat(file.fileno()).st_size:
        file.truncate(complete)


def end_of_last_line(file: FileIO, before: int | None = None) -> int:
    """Return the offset behind the last newline of the first `before` bytes; None: of the whole file."""
    end = size = file.seek(0, os.SEEK_END)
    end = min(size, size if before is None else before)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        if newline := file.read(end - start).rfind(b"\n") + 1:
            return start + newline
        end = start
    return 0
