"""The examples: reading the upstream files, preparing them, and handing out what is prepared."""

import functools
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline import download, prepare
from pipeline.config import DataConfig, compose
from pipeline.data import providers
from pipeline.data.dataset import SPLITS, Dataset, write_dataset
from pipeline.data.idx import read_idx, write_idx
from pipeline.data.obtain import obtain
from pipeline.data.providers import FILES, SAMPLE, RawSplits, decode, fetch
from pipeline.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ARRAYS = [f"{split}/{part}.npy" for split in SPLITS for part in ("images", "labels")]

# the IDX format -----------------------------------------------------------------------------------


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


# the bundled sample -------------------------------------------------------------------------------


def sample(*overrides: str) -> DataConfig:
    return compose(["data=mnist_sample", *(f"data.{override}" for override in overrides)]).data


@pytest.fixture(scope="module")
def raw() -> RawSplits:
    return decode(SAMPLE)


def test_the_bundled_sample_is_12000_and_2000_labelled_digits(raw: RawSplits) -> None:
    for (images, labels), count in ((raw.train, 12_000), (raw.test, 2_000)):
        assert images.shape == (count, 28, 28, 1)
        assert images.dtype == np.uint8
        assert labels.shape == (count,)
        assert labels.dtype == np.int64
        assert sorted(set(labels.tolist())) == list(range(10))
    assert raw.classes == tuple("0123456789")


def test_fetching_the_sample_copies_the_bundled_files(tmp_path: Path) -> None:
    advanced: list[int] = []
    fetch(sample(), tmp_path, advanced.append)
    assert advanced == [1] * len(FILES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        name: (SAMPLE / name).read_bytes() for name in FILES
    }


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, np.uint8), r"not one label per image"),
        (np.array([0, 10], np.uint8), r"t10k-labels.*label 10 where"),
    ],
    ids=["one too many", "above 9"],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    for name in FILES:
        write_idx(tmp_path / name, np.zeros((2, 28, 28) if "images" in name else 2, np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
    with pytest.raises(UserError, match=message):
        decode(tmp_path)


# preparing the sample -----------------------------------------------------------------------------


def prepared(raw: RawSplits, folder: Path, *overrides: str) -> Dataset:
    folder.mkdir()
    write_dataset(raw, sample(*overrides), folder)
    return Dataset.open(folder)


def first_hundred(raw: RawSplits) -> RawSplits:
    (x, y), (test_x, test_y), classes = raw
    return RawSplits((x[:100].copy(), y[:100].copy()), (test_x[:100].copy(), test_y[:100].copy()), classes)


def files(dataset: Dataset) -> dict[str, bytes]:
    return {name: (dataset.folder / name).read_bytes() for name in [*ARRAYS, "dataset.json"]}


def examples(images: np.ndarray, labels: np.ndarray) -> Counter[bytes]:
    return Counter(
        image.tobytes() + label.tobytes() for image, label in zip(images, labels.astype(np.int64), strict=True)
    )


def split_examples(dataset: Dataset, *names: str) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for name in SPLITS:
        if name in names:
            split = dataset.split(name)
            found += examples(split.images, split.labels)
    return found


@pytest.fixture(scope="module")
def whole(raw: RawSplits, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The whole sample, with a fifth of the training file for validation."""
    return prepared(raw, tmp_path_factory.mktemp("whole") / "prepared", "validation_fraction=0.2")


def test_a_prepared_data_set_holds_the_declared_arrays(whole: Dataset, raw: RawSplits) -> None:
    for name, count in zip(SPLITS, (9_600, 2_400, 2_000), strict=True):
        split = whole.split(name)
        assert abs(len(split.labels) - count) <= 10  # rounded for each class
        assert split.images.shape == (len(split.labels), 28, 28, 1)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert isinstance(split.images, np.memmap)
        assert whole.facts["examples"][name] == len(split.labels)
        assert whole.facts["class_counts"][name] == np.bincount(split.labels, minlength=10).tolist()
    pixels = np.asarray(whole.split("train").images) / 255
    assert whole.facts["channel_mean"] == pytest.approx([pixels.mean()], abs=1e-8)
    assert whole.facts["channel_std"] == pytest.approx([pixels.std()], abs=1e-8)
    assert whole.name == "mnist_sample"
    assert whole.image_shape == (28, 28, 1)
    assert whole.classes == raw.classes
    assert re.fullmatch("[0-9a-f]{32}", whole.fingerprint)


def test_every_upstream_example_is_in_exactly_one_split(whole: Dataset, raw: RawSplits) -> None:
    assert split_examples(whole, "train", "validation") == examples(*raw.train)
    assert split_examples(whole, "test") == examples(*raw.test)
    assert not split_examples(whole, "train") & split_examples(whole, "validation")


def test_the_validation_split_has_its_share_of_every_class(whole: Dataset, raw: RawSplits) -> None:
    counts = np.bincount(raw.train[1])
    assert np.bincount(whole.split("validation").labels).tolist() == [round(0.2 * count) for count in counts]


def test_the_order_of_the_upstream_files_does_not_matter(whole: Dataset, raw: RawSplits, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)

    def shuffled(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = generator.permutation(len(labels))
        return images[order], labels[order]

    other = RawSplits(shuffled(*raw.train), shuffled(*raw.test), raw.classes)
    again = prepared(other, tmp_path / "prepared", "validation_fraction=0.2")
    assert again.fingerprint == whole.fingerprint
    assert files(again) == files(whole)


def test_the_split_seed_moves_the_split_and_not_the_test_examples(
    whole: Dataset, raw: RawSplits, tmp_path: Path
) -> None:
    other = prepared(raw, tmp_path / "prepared", "validation_fraction=0.2", "split_seed=1")
    assert other.fingerprint != whole.fingerprint
    assert split_examples(other, "validation") != split_examples(whole, "validation")
    assert split_examples(other, "train", "validation") == split_examples(whole, "train", "validation")
    changed = {name for name in ARRAYS if files(other)[name] != files(whole)[name]}
    assert changed == {name for name in ARRAYS if not name.startswith("test/")}


def test_one_changed_pixel_changes_the_fingerprint(raw: RawSplits, tmp_path: Path) -> None:
    few = first_hundred(raw)
    before = prepared(few, tmp_path / "before", "validation_fraction=0.2")
    few.test[0][3, 14, 14, 0] ^= 1
    assert prepared(few, tmp_path / "after", "validation_fraction=0.2").fingerprint != before.fingerprint


def test_limits_keep_a_sample_that_no_seed_moves(raw: RawSplits, tmp_path: Path) -> None:
    limits = ("validation_fraction=0.2", "max_train=1000", "max_test=200")
    some = prepared(raw, tmp_path / "some", *limits)
    assert len(some.split("train").labels) + len(some.split("validation").labels) == 1_000
    assert len(some.split("test").labels) == 200
    kept = split_examples(some, "train", "validation")
    assert kept < examples(*raw.train)
    assert split_examples(some, "test") < examples(*raw.test)
    other = prepared(raw, tmp_path / "other", *limits, "split_seed=1")
    assert split_examples(other, "train", "validation") == kept


def test_limits_above_the_number_of_examples_change_nothing(whole: Dataset, raw: RawSplits, tmp_path: Path) -> None:
    limits = ("validation_fraction=0.2", "max_train=60000", "max_test=60000")
    assert prepared(raw, tmp_path / "prepared", *limits).fingerprint == whole.fingerprint


@pytest.mark.parametrize("fraction", ["0.001", "0.999"])
def test_a_fraction_that_leaves_one_side_empty_is_refused(raw: RawSplits, tmp_path: Path, fraction: str) -> None:
    with pytest.raises(UserError, match=rf"data\.validation_fraction = {fraction}: .*allowed"):
        prepared(raw, tmp_path / "prepared", f"validation_fraction={fraction}", "max_train=50")


# opening what is prepared -------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe\0"], ids=["absent", "empty", "cut short", "binary"])
def test_what_is_not_a_prepared_folder_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.json: cannot be read .*dvc repro prepare"):
        Dataset.open(tmp_path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "not an array": lambda path: path.write_bytes(b"labels\n"),
    "pickled": lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True),
}


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_unreadable_array_is_named(
    raw: RawSplits, tmp_path: Path, part: str, damage: Callable[[Path], object]
) -> None:
    few = first_hundred(raw)
    dataset = prepared(few, tmp_path / "prepared", "validation_fraction=0.2")
    damage(dataset.folder / "validation" / f"{part}.npy")
    with pytest.raises(UserError, match=rf"validation/{part}\.npy: cannot be read .*dvc repro prepare"):
        dataset.split("validation")
    dataset.split("train")


# obtaining data outside the pipeline --------------------------------------------------------------

SMALL = ("max_train=500", "max_test=100")


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in [*ARRAYS, "dataset.json"]
    }


def test_what_the_pipeline_prepared_is_used_where_it_fits(raw: RawSplits, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    own = prepared(raw, tmp_path / "data" / "prepared", *SMALL)
    assert obtain(sample(*SMALL), tmp_path).folder == own.folder
    assert obtain(sample(*SMALL, "mirror=/elsewhere"), tmp_path).folder == own.folder
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["prepared"]


def test_what_the_pipeline_prepared_otherwise_is_left_alone(raw: RawSplits, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    own = prepared(raw, tmp_path / "data" / "prepared", *SMALL)
    before = stamps(own.folder)
    other = obtain(sample(*SMALL, "split_seed=1"), tmp_path)
    assert other.folder.parent == tmp_path / "data" / "cache"
    assert other.facts["source"]["split_seed"] == 1
    assert stamps(own.folder) == before


def test_a_second_call_finds_what_the_first_made(tmp_path: Path) -> None:
    first = obtain(sample(*SMALL), tmp_path)
    before = stamps(first.folder)
    assert obtain(sample(*SMALL), tmp_path) == first
    assert stamps(first.folder) == before
    assert obtain(sample(*SMALL, "split_seed=1"), tmp_path).folder != first.folder


def test_an_interrupted_build_is_built_again(tmp_path: Path) -> None:
    folder = obtain(sample(*SMALL), tmp_path).folder
    fingerprint = Dataset.open(folder).fingerprint
    (folder / "dataset.json").unlink()
    (folder.with_name(folder.name + ".building") / "raw").mkdir(parents=True)
    again = obtain(sample(*SMALL), tmp_path)
    assert again.fingerprint == fingerprint
    assert len(again.split("test").labels) == 100
    assert not folder.with_name(folder.name + ".building").exists()


OBTAIN = """
import sys, time
from pathlib import Path
from pipeline.config import DataConfig
from pipeline.data.obtain import obtain

root = Path(sys.argv[1])
data = DataConfig.model_validate_json(sys.argv[2])
(root / f"ready{sys.argv[3]}").touch()
while not (root / "go").exists():
    time.sleep(0.001)
dataset = obtain(data, root)
print("fingerprint", dataset.fingerprint, len(dataset.split("test").labels))
"""


def test_four_processes_at_once_build_once_and_see_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OBTAIN, str(tmp_path), sample(*SMALL).model_dump_json()]
    processes = [
        subprocess.Popen([*command, str(number)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    while len(list(tmp_path.glob("ready*"))) < 4 and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    lines = [line for output, _ in outputs for line in output.splitlines()]
    found = {line for line in lines if line.startswith("fingerprint")}
    assert found == {f"fingerprint {obtain(sample(*SMALL), tmp_path).fingerprint} 100"}
    assert sum(line.startswith("download") for line in lines) == 1


# upstream files from a mirror, through torchvision ------------------------------------------------

torchvision = pytest.mark.xdist_group("pytorch")  # never in the process that has loaded TensorFlow: it would crash
MNIST_FILES = Path(os.environ.get("MNIST_FILES") or ROOT.parent / "shared" / "data" / "mnist")
needs_mnist_files = pytest.mark.skipif(
    not all((MNIST_FILES / name).is_file() for name in FILES),
    reason=f"the four official MNIST files are not in {MNIST_FILES}; the variable MNIST_FILES names their folder",
)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder for stages that run in this process."""
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path / "workspace"
    signal.signal(signal.SIGTERM, before)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL under which `folder` is served while the context lasts."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def as_mirror(folder: Path, way: str) -> Iterator[str]:
    if way == "folder":
        yield str(folder)
    else:
        with served(folder) as url:
            yield url


def mirror_of_mnist(folder: Path) -> Path:
    folder.mkdir()
    for name in FILES:
        (folder / name).symlink_to(MNIST_FILES / name)
    return folder


@torchvision
@needs_mnist_files
@pytest.mark.parametrize("way", ["folder", "http"])
def test_a_mirror_delivers_the_official_files(workspace: Path, way: str) -> None:
    with as_mirror(MNIST_FILES, way) as mirror:
        download.main(["data=mnist", f"data.mirror={mirror}"])
    assert {path.name: path.read_bytes() for path in Path("data/raw").iterdir()} == {
        name: (MNIST_FILES / name).read_bytes() for name in FILES
    }
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


@torchvision
@needs_mnist_files
def test_the_full_data_set_is_prepared_and_the_sample_is_every_fifth_of_it(workspace: Path, raw: RawSplits) -> None:
    download.main(["data=mnist", f"data.mirror={MNIST_FILES}"])
    prepare.main(["data=mnist", "data.validation_fraction=0.1"])
    counts = json.loads(Path("data/prepared/dataset.json").read_text())["examples"]
    assert sum(counts.values()) == 70_000
    assert abs(counts["validation"] - 6_000) <= 10
    assert counts["test"] == 10_000
    official = decode(Path("data/raw"))
    for upstream, bundled in ((official.train, raw.train), (official.test, raw.test)):
        assert np.array_equal(upstream[0][::5], bundled[0])
        assert np.array_equal(upstream[1][::5], bundled[1])


MIRROR_DAMAGES: dict[str, Callable[[Path, bytes], object]] = {
    "tampered": lambda path, content: path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]),
    "truncated": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "missing": lambda path, content: None,
}


@torchvision
@needs_mnist_files
@pytest.mark.parametrize("way", ["folder", "http"])
@pytest.mark.parametrize("damage", MIRROR_DAMAGES.values(), ids=MIRROR_DAMAGES)
def test_a_damaged_file_in_a_mirror_is_named_and_nothing_is_left(
    workspace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    way: str,
    damage: Callable[[Path, bytes], object],
) -> None:
    bad = mirror_of_mnist(tmp_path / "mirror") / FILES[-1]
    bad.unlink()
    damage(bad, (MNIST_FILES / FILES[-1]).read_bytes())
    with as_mirror(bad.parent, way) as mirror, pytest.raises(SystemExit) as caught:
        download.main(["data=mnist", f"data.mirror={mirror}"])
    assert caught.value.code == 2
    assert re.search(rf"^error: .*{re.escape(bad.name)}", capsys.readouterr().err, re.MULTILINE)
    assert list(Path("data").iterdir()) == []


@torchvision
@pytest.mark.parametrize("way", ["folder", "http"])
def test_files_that_are_not_the_official_ones_are_refused(tmp_path: Path, workspace: Path, way: str) -> None:
    with as_mirror(SAMPLE, way) as mirror, pytest.raises(UserError, match=re.escape(FILES[0])):
        fetch(compose(["data=mnist", f"data.mirror={mirror}"]).data, tmp_path, lambda _: None)


@torchvision
def test_a_failed_download_leaves_the_earlier_files(workspace: Path) -> None:
    download.main(["data=mnist_sample"])
    with pytest.raises(SystemExit):
        download.main(["data=mnist", "data.mirror=/no/such/folder"])
    assert sorted(path.name for path in Path("data/raw").iterdir()) == sorted(FILES)


@torchvision
@pytest.mark.parametrize("mirror", ["/no/such/folder", f"{__file__}"], ids=["absent", "a file"])
def test_a_mirror_that_is_no_folder_is_refused_at_once(tmp_path: Path, mirror: str) -> None:
    data = compose(["data=mnist", f"data.mirror={mirror}"]).data
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"data\.mirror = {re.escape(mirror)}: .*allowed: a folder or URL"):
        fetch(data, tmp_path, lambda _: None)
    assert time.monotonic() - began < 20  # the import of torchvision included
    assert list(tmp_path.iterdir()) == []


@torchvision
@pytest.mark.usefixtures("workspace")
def test_a_mirror_that_nobody_serves_is_refused_with_what_works_without_network(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"{re.escape(url)}(.|\n)*data\.mirror=(.|\n)*data=mnist_sample"):
            fetch(compose(["data=mnist", f"data.mirror={url}"]).data, tmp_path, lambda _: None)


@torchvision
@pytest.mark.usefixtures("workspace")
def test_a_mirror_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "SILENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="timed out"):
            fetch(compose(["data=mnist", f"data.mirror={url}"]).data, tmp_path, lambda _: None)
    assert socket.getdefaulttimeout() is None
