"""Arrays in files: read piece by piece, equal to NumPy's; and memory that does not grow with the data."""

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptors import opened

from pipeline.config.compose import compose
from pipeline.core.errors import DataChangedError
from pipeline.data.array_file import ArrayFile
from pipeline.data.build import write_dataset
from pipeline.data.dataset import Dataset
from pipeline.data.providers import Example

ARRAYS = {
    "images": np.random.default_rng(0).integers(0, 256, (17, 4, 5, 3), np.uint8),
    "labels": np.arange(17) * 1_000_003,
    "none": np.zeros((0, 2, 2, 1), np.uint8),
    "empty images": np.zeros((3, 0, 2, 1), np.uint8),
}


def stored(folder: Path, array: np.ndarray) -> ArrayFile:
    np.save(folder / "a.npy", array)
    return ArrayFile.open(folder / "a.npy")


KEYS: dict[str, Any] = {
    "all": slice(None),
    "the beginning": slice(5),
    "the end": slice(-3, None),
    "beyond the end": slice(10, 99),
    "before the beginning": slice(-99, 2),
    "nothing": slice(5, 5),
    "backwards nothing": slice(5, 2),
    "every third": slice(1, None, 3),
    "backwards": slice(None, None, -1),
    "backwards by two": slice(12, 3, -2),
    "positions": np.array([3, 0, 3, 2, 1]),
    "no position": np.array([], np.int64),
    "small positions": np.array([2, 1], np.uint8),
    "a mask": np.arange(17) % 3 == 1,
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_a_key_gives_what_numpy_gives(tmp_path: Path, array: np.ndarray, key: Any) -> None:
    if isinstance(key, np.ndarray):
        key = key[: len(array)] if key.dtype == bool else key[key < len(array)]
    found = stored(tmp_path, array)[key]
    assert found.dtype == array.dtype
    assert found.shape == array[key].shape
    assert np.array_equal(found, array[key])


@pytest.mark.parametrize("position", [0, 16, -1, -17, np.int64(3)])
@pytest.mark.parametrize("name", ["images", "labels"])
def test_one_position_gives_one_row(tmp_path: Path, name: str, position: int) -> None:
    found = stored(tmp_path, ARRAYS[name])[position]
    assert np.array_equal(found, ARRAYS[name][position])
    assert np.shape(found) == ARRAYS[name].shape[1:]


@pytest.mark.parametrize(
    "key", [17, -18, np.array([0, 17]), np.array([-1]), np.ones(16, bool)], ids=["17", "-18", "[17]", "[-1]", "mask"]
)
def test_a_position_that_there_is_not_is_refused(tmp_path: Path, key: Any) -> None:
    with pytest.raises(IndexError):
        stored(tmp_path, ARRAYS["images"])[key]


def test_it_has_the_size_of_its_array_and_becomes_one(tmp_path: Path) -> None:
    for array in ARRAYS.values():
        found = stored(tmp_path, array)
        assert (len(found), found.shape, found.dtype, found.nbytes) == (
            len(array),
            array.shape,
            array.dtype,
            array.nbytes,
        )
        assert np.array_equal(np.asarray(found), array)
        assert np.asarray(found, np.float32).dtype == np.float32


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    found = stored(tmp_path, ARRAYS["images"])
    rows = found[:2]
    rows += 1
    assert np.array_equal(found[:2], ARRAYS["images"][:2])


def test_many_threads_may_read_at_once(tmp_path: Path) -> None:
    found = stored(tmp_path, ARRAYS["images"])
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda number: found[number % 17], range(500)))
    assert np.array_equal(rows, ARRAYS["images"][np.arange(500) % 17])


SHORTER: dict[str, Callable[[ArrayFile], Any]] = {
    "a row": lambda array: array[16],
    "a slice": lambda array: array[10:],
    "positions": lambda array: array[np.array([0, 16])],
}


@pytest.mark.parametrize("read", SHORTER.values(), ids=SHORTER)
def test_a_file_that_becomes_shorter_is_named(tmp_path: Path, read: Callable[[ArrayFile], Any]) -> None:
    found = stored(tmp_path, ARRAYS["images"])
    os.truncate(tmp_path / "a.npy", (tmp_path / "a.npy").stat().st_size - 1)
    with pytest.raises(DataChangedError, match=r"a\.npy: became shorter"):
        read(found)
    assert np.array_equal(found[3], ARRAYS["images"][3])
    with pytest.raises(ValueError, match=r"1,147 bytes, 1,148 expected"):
        ArrayFile(found.path, found.shape, found.dtype, 128)


def test_another_order_of_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="C order"):
        stored(tmp_path, np.asfortranarray(ARRAYS["images"]))


def test_an_array_that_is_no_longer_needed_closes_its_file(tmp_path: Path) -> None:
    found = stored(tmp_path, ARRAYS["images"])
    gc.collect()
    again = [ArrayFile.open(found.path) for _ in range(20)]
    assert len(opened(found.path)) == 20 + 1
    del again
    gc.collect()
    assert len(opened(found.path)) == 1


# memory -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """See `Source`: images that are made when they are asked for."""

    count: int
    slow: bool
    classes = ("a", "b")
    remarks = ()

    @property
    def parts(self) -> dict[str, int]:
        return {"train": self.count, "test": 100}

    def examples(self, part: str) -> Iterator[Example]:
        generator = np.random.default_rng(len(part))
        for number in range(self.parts[part]):
            image = generator.integers(0, 256, (80, 80, 3), np.uint8)
            yield Example(f"{part} {number}", number % 2, lambda image=image: image)  # type: ignore[misc]


@pytest.mark.parametrize("slow", [False, True], ids=["one thread", "threads"])
def test_memory_does_not_grow_with_the_data(tmp_path: Path, slow: bool) -> None:
    peaks = []
    for count in (2_000, 6_000):  # 38 and 115 MB
        folder = tmp_path / str(count)
        folder.mkdir()
        tracemalloc.start()
        dataset = write_dataset(Drawn(count, slow), compose().data, folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert dataset.facts.examples["test"] == 100
    assert peaks[1] - peaks[0] < 8e6, peaks
    tracemalloc.start()
    images = Dataset.open(folder).split("train").images
    assert all(images[start : start + 100].shape[1:] == (80, 80, 3) for start in range(0, len(images), 100))
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()
