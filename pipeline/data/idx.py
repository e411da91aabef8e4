"""The IDX format of the MNIST files (http://yann.lecun.com/exdb/mnist/): big-endian header, then unsigned bytes."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes into a uint8 array of the header's shape; `.gz`: decompress it first.

    Raises `UserError` naming the file if it is missing, not gzip, not IDX, truncated or too long.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; `dvc repro download` fetches it") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTE:
        raise UserError(f"{path}: not an IDX file of unsigned bytes (starts with {raw[:4].hex() or 'nothing'})")
    axes = raw[3]
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", raw[4:start]) if len(raw) >= start else ()
    expected = start + int(np.prod(shape, dtype=np.int64))
    if not shape or len(raw) != expected:
        raise UserError(f"{path}: {len(raw):,} bytes where the header {shape} asks for {expected:,}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array as a gzip-compressed IDX file of unsigned bytes; the same array gives the same bytes."""
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    write_bytes(path, gzip.compress(header + np.ascontiguousarray(array, np.uint8).tobytes(), 9, mtime=0))
