"""Arrays in files, read piece by piece."""

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataChangedError


class ArrayFile:
    """An array in a file; indexing by a position, a slice or positions reads just these into a new array.

    Not a memory map: the pages of one count as this process's memory for as long as it lasts, so that a walk through a
    large file looks like, and under a limit is, a process that holds all of it.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0) -> None:
        self.path, self.shape, self.dtype, self._offset = path, shape, np.dtype(dtype), offset
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if path.stat().st_size < offset + shape[0] * self._row:
            raise ValueError(f"{path.stat().st_size:,} bytes, {offset + shape[0] * self._row:,} expected")
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._opened = self._look()
        weakref.finalize(self, os.close, self._file)

    @classmethod
    def open(cls, path: Path) -> "ArrayFile":
        """An `.npy` file. Raises OSError, ValueError or EOFError where it is none, or pickled."""
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(mapped, np.memmap) or not mapped.flags.c_contiguous:
            raise ValueError("not an array in C order")
        return cls(path, mapped.shape, mapped.dtype, mapped.offset)

    @property
    def changed(self) -> bool:
        """Whether the file was written to since it was opened; one that took its place does not matter to us."""
        return self._look() != self._opened

    @property
    def nbytes(self) -> int:
        """Of all of it."""
        return self.shape[0] * self._row

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(key, int | np.integer):
            position = range(len(self))[int(key)]
            return self._rows(position, 1)[0]  # type: ignore[no-any-return]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._rows(start, max(0, stop - start))
            key = np.arange(start, stop, step)
        rows = np.asarray(key)
        return self._gathered(np.arange(len(self))[rows] if rows.dtype == bool else rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_size, found.st_mtime_ns

    def _rows(self, start: int, count: int) -> np.ndarray:
        out = np.empty((count, *self.shape[1:]), self.dtype)
        self._fill(_bytes_of(out), self._offset + start * self._row)
        return out

    def _gathered(self, rows: np.ndarray) -> np.ndarray:
        if len(bad := rows[(rows < 0) | (rows >= len(self))]):
            raise IndexError(f"{self.path}: row {bad[0]} of {len(self)}")
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        view, size = _bytes_of(out), self._row
        for place, row in enumerate(rows.tolist()):
            self._fill(view[place * size : (place + 1) * size], self._offset + row * size)
        return out

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            count = os.preadv(self._file, [view], offset)
            if not count:
                raise DataChangedError(f"{self.path}: became shorter while it was read")
            view, offset = view[count:], offset + count


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
