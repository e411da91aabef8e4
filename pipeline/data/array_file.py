"""Read an array in a file piece by piece."""

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataChangedError


class ArrayFile:
    """An array in a file. Indexing by a row, a slice, rows or a boolean mask reads just these rows into a new array.

    Not a memory map: pages that were read through one count as this process's memory, so that a walk through a large
    file would exceed a memory limit.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0) -> None:
        """Open rows in C order that begin `offset` bytes into the file. Raises ValueError if the file is too short."""
        self.path, self.shape, self.dtype, self._offset = path, shape, np.dtype(dtype), offset
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if path.stat().st_size < offset + shape[0] * self._row_bytes:
            raise ValueError(f"{path.stat().st_size:,} bytes, {offset + shape[0] * self._row_bytes:,} expected")
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._opened = self._state()
        weakref.finalize(self, os.close, self._file)

    @classmethod
    def open(cls, path: Path) -> "ArrayFile":
        """Open an `.npy` file. Raises OSError, ValueError or EOFError if it is not one in C order, or is pickled."""
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(mapped, np.memmap) or not mapped.flags.c_contiguous:
            raise ValueError("not an array in C order")
        return cls(path, mapped.shape, mapped.dtype, mapped.offset)

    @property
    def changed(self) -> bool:
        """Whether the file was written to since it was opened; one that replaced it is another file."""
        return self._state() != self._opened

    @property
    def nbytes(self) -> int:
        """Size of the whole array in bytes."""
        return self.shape[0] * self._row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(key, int | np.integer):
            row = range(len(self))[int(key)]
            return self._rows(row, 1)[0]  # type: ignore[no-any-return]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._rows(start, max(0, stop - start))
            key = np.arange(start, stop, step)
        rows = np.asarray(key)
        return self._gather(np.arange(len(self))[rows] if rows.dtype == bool else rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns

    def _rows(self, start: int, count: int) -> np.ndarray:
        out = np.empty((count, *self.shape[1:]), self.dtype)
        self._fill(_bytes_of(out), self._offset + start * self._row_bytes)
        return out

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        if len(outside := rows[(rows < 0) | (rows >= len(self))]):
            raise IndexError(f"{self.path}: row {outside[0]} of {len(self)}")
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        view, size = _bytes_of(out), self._row_bytes
        for position, row in enumerate(rows.tolist()):
            self._fill(view[position * size : (position + 1) * size], self._offset + row * size)
        return out

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            count = os.preadv(self._file, [view], offset)
            if not count:
                raise DataChangedError(f"{self.path}: became shorter while it was read")
            view, offset = view[count:], offset + count


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
