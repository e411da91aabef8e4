"""How the C library gives memory to PyTorch on the CPU."""

import ctypes
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_BLOCK_BYTES: Final = 32 << 20  # the most that glibc takes on 64 bits: half of HEAP_MAX_SIZE, malloc/arena.c
_KEPT_BYTES: Final = 256 << 20


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the system at once.

    glibc gets a block above 128 KiB from the system, whose pages are then touched for the first time, and raises that
    limit as blocks are freed (mallopt(3)). So a process that only predicts did that at 0.4 times the speed of one that
    had trained. Does nothing with another C library.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _BLOCK_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
