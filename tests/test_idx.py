"""The IDX format of the MNIST files, and every way in which such a file can be bad."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.data.idx import read_idx, write_idx


@pytest.mark.parametrize("name", ["digits.gz", "digits"])
@pytest.mark.parametrize("shape", [(3, 5, 4), (7,)], ids=str)
def test_idx_reads_back_what_was_written(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "digits.gz", array)
    if name == "digits":
        (tmp_path / name).write_bytes(gzip.decompress((tmp_path / "digits.gz").read_bytes()))
    read = read_idx(tmp_path / name)
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


def test_idx_writes_the_same_bytes_for_the_same_array(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    write_idx(tmp_path / "a.gz", array)
    write_idx(tmp_path / "b.gz", np.asfortranarray(array))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[4:8] == bytes(4)  # gzip's own field for the time of writing


IDX = bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4])
BAD_IDX = {
    "empty": (b"", r"starts with nothing"),
    "not gzip": (IDX, r"cannot be read: .*gzip"),
    "gzip cut short": (gzip.compress(IDX)[:-9], r"cannot be read: "),
    "gzip with a wrong checksum": (gzip.compress(IDX)[:-8] + bytes(8), r"cannot be read: .*CRC"),
    "truncated": (gzip.compress(IDX[:-1]), r"11 bytes where the header \(4,\) asks for 12"),
    "too long": (gzip.compress(IDX + b"\5"), r"13 bytes where the header \(4,\) asks for 12"),
    "header cut short": (gzip.compress(IDX[:6]), r"6 bytes where the header"),
    "no axes": (gzip.compress(bytes([0, 0, 8, 0, 9])), r"5 bytes where the header"),
    "not IDX": (gzip.compress(b"<html>"), r"not an IDX file of unsigned bytes \(starts with 3c68746d\)"),
    "IDX of floats": (gzip.compress(bytes([0, 0, 13]) + IDX[3:]), r"not an IDX file of unsigned bytes"),
    "three bytes": (gzip.compress(IDX[:3]), r"not an IDX file of unsigned bytes"),
}


@pytest.mark.parametrize(("content", "message"), BAD_IDX.values(), ids=BAD_IDX)
def test_a_bad_idx_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "digits.gz").write_bytes(content)
    with pytest.raises(UserError, match=f"digits.gz: .*{message}"):
        read_idx(tmp_path / "digits.gz")


def test_an_absent_idx_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"digits\.gz: cannot be read: .*No such file"):
        read_idx(tmp_path / "digits.gz")
