"""The bundled sample, and any examples: what they are prepared to, what is refused, and how that is opened."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from libraries import MNIST_FILES, needs_mnist_files

from pipeline import download, prepare
from pipeline.config.compose import compose
from pipeline.config.schema.data import DataConfig
from pipeline.core.errors import UserError
from pipeline.data.array_file import ArrayFile
from pipeline.data.build import source_of, write_dataset
from pipeline.data.dataset import SPLITS, Dataset, SplitName
from pipeline.data.idx import write_idx
from pipeline.data.providers import ArraySource, opened
from pipeline.data.providers.bundled_provider import FILES, SAMPLE

DIGITS = "d211fdcad21f758e3edce772b08d9444"
ARRAYS = [f"{split}/{part}.npy" for split in SPLITS for part in ("images", "labels")]

# the bundled sample -------------------------------------------------------------------------------


def sample(*overrides: str) -> DataConfig:
    return compose(["data=mnist_sample", *(f"data.{override}" for override in overrides)]).data


@pytest.fixture(scope="module")
def raw() -> ArraySource:
    with opened(sample(), SAMPLE) as source:
        assert isinstance(source, ArraySource)
        return source


def test_the_bundled_sample_is_12000_and_2000_labelled_digits(raw: ArraySource) -> None:
    assert raw.parts == {"train": 12_000, "test": 2_000}
    for part, count in raw.parts.items():
        images, labels = raw.arrays[part]
        assert images.shape == (count, 28, 28, 1)
        assert images.dtype == np.uint8
        assert labels.shape == (count,)
        assert labels.dtype == np.int64
        assert sorted(set(labels.tolist())) == list(range(10))
    assert raw.classes == tuple("0123456789")


@needs_mnist_files
def test_the_sample_is_every_fifth_image_of_the_official_files(raw: ArraySource) -> None:
    with opened(sample(), MNIST_FILES) as official:
        for part, (images, labels) in raw.arrays.items():
            assert np.array_equal(official.arrays[part][0][::5], images)
            assert np.array_equal(official.arrays[part][1][::5], labels)


def test_the_stages_prepare_the_sample_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    download.main([])
    assert {path.name: path.read_bytes() for path in Path("data/raw").iterdir()} == {
        name: (SAMPLE / name).read_bytes() for name in FILES
    }
    prepare.main([])
    assert sorted(path.name for path in Path("data").iterdir()) == ["cache", "prepared", "raw"]
    dataset = Dataset.open(Path("data/prepared"))
    assert dataset.fingerprint == DIGITS
    assert dataset.facts.examples == {"train": 11_400, "validation": 600, "test": 2_000}
    assert not list(dataset.folder.glob("*.unordered"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, np.uint8), r"not one label per image"),
        (np.array([0, 10], np.uint8), r"10 classes, and labels from 0 to 10; allowed: 0 to 9"),
    ],
    ids=["one too many", "above 9"],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    for name in FILES:
        write_idx(tmp_path / name, np.zeros((2, 28, 28) if "images" in name else 2, np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
    with pytest.raises(UserError, match=message), opened(sample(), tmp_path) as source:
        prepared(source, tmp_path / "prepared")


# preparing the sample -----------------------------------------------------------------------------


def prepared(raw: ArraySource, folder: Path, *overrides: str) -> Dataset:
    folder.mkdir()
    write_dataset(raw, sample(*overrides), folder)
    return Dataset.open(folder)


def first_hundred(raw: ArraySource) -> ArraySource:
    return replace(raw, arrays={part: (x[:100].copy(), y[:100].copy()) for part, (x, y) in raw.arrays.items()})


def files(dataset: Dataset) -> dict[str, bytes]:
    return {name: (dataset.folder / name).read_bytes() for name in [*ARRAYS, "dataset.json"]}


def examples(images: np.ndarray, labels: np.ndarray) -> Counter[bytes]:
    return Counter(
        image.tobytes() + label.tobytes() for image, label in zip(images, labels.astype(np.int64), strict=True)
    )


def split_examples(dataset: Dataset, *names: SplitName) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for name in SPLITS:
        if name in names:
            split = dataset.split(name)
            found += examples(split.images[:], split.labels)
    return found


@pytest.fixture(scope="module")
def whole(raw: ArraySource, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The whole sample, with a fifth of the training file for validation."""
    return prepared(raw, tmp_path_factory.mktemp("whole") / "prepared", "validation_fraction=0.2")


def test_a_prepared_data_set_holds_the_declared_arrays(whole: Dataset, raw: ArraySource) -> None:
    for name, count in zip(SPLITS, (9_600, 2_400, 2_000), strict=True):
        split = whole.split(name)
        assert abs(len(split.labels) - count) <= 10  # rounded for each class
        assert split.images.shape == (len(split.labels), 28, 28, 1)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert isinstance(split.images, ArrayFile)
        assert whole.facts.examples[name] == len(split.labels)
        assert whole.facts.class_counts[name] == np.bincount(split.labels, minlength=10).tolist()
    pixels = np.asarray(whole.split("train").images) / 255
    assert whole.facts.channel_mean == pytest.approx([pixels.mean()], abs=1e-8)
    assert whole.facts.channel_std == pytest.approx([pixels.std()], abs=1e-8)
    assert whole.name == "mnist_sample"
    assert whole.image_shape == (28, 28, 1)
    assert whole.classes == raw.classes
    assert re.fullmatch("[0-9a-f]{32}", whole.fingerprint)


def test_every_upstream_example_is_in_exactly_one_split(whole: Dataset, raw: ArraySource) -> None:
    assert split_examples(whole, "train", "validation") == examples(*raw.arrays["train"])
    assert split_examples(whole, "test") == examples(*raw.arrays["test"])
    assert not split_examples(whole, "train") & split_examples(whole, "validation")


def test_the_validation_split_has_its_share_of_every_class(whole: Dataset, raw: ArraySource) -> None:
    counts = np.bincount(raw.arrays["train"][1])
    assert np.bincount(whole.split("validation").labels).tolist() == [round(0.2 * count) for count in counts]


def test_the_order_of_the_upstream_files_does_not_matter(whole: Dataset, raw: ArraySource, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)

    def shuffled(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = generator.permutation(len(labels))
        return images[order], labels[order]

    other = replace(raw, arrays={part: shuffled(*arrays) for part, arrays in raw.arrays.items()})
    again = prepared(other, tmp_path / "prepared", "validation_fraction=0.2")
    assert again.fingerprint == whole.fingerprint
    assert files(again) == files(whole)


def test_the_split_seed_moves_the_split_and_not_the_test_examples(
    whole: Dataset, raw: ArraySource, tmp_path: Path
) -> None:
    other = prepared(raw, tmp_path / "prepared", "validation_fraction=0.2", "split_seed=1")
    assert other.fingerprint != whole.fingerprint
    assert split_examples(other, "validation") != split_examples(whole, "validation")
    assert split_examples(other, "train", "validation") == split_examples(whole, "train", "validation")
    changed = {name for name in ARRAYS if files(other)[name] != files(whole)[name]}
    assert changed == {name for name in ARRAYS if not name.startswith("test/")}


def test_one_changed_pixel_changes_the_fingerprint(raw: ArraySource, tmp_path: Path) -> None:
    few = first_hundred(raw)
    before = prepared(few, tmp_path / "before", "validation_fraction=0.2")
    few.arrays["test"][0][3, 14, 14, 0] ^= 1
    assert prepared(few, tmp_path / "after", "validation_fraction=0.2").fingerprint != before.fingerprint


def test_limits_keep_a_sample_that_no_seed_moves(raw: ArraySource, tmp_path: Path) -> None:
    limits = ("validation_fraction=0.2", "max_train=1000", "max_test=200")
    some = prepared(raw, tmp_path / "some", *limits)
    assert len(some.split("train").labels) + len(some.split("validation").labels) == 1_000
    assert len(some.split("test").labels) == 200
    kept = split_examples(some, "train", "validation")
    assert kept < examples(*raw.arrays["train"])
    assert split_examples(some, "test") < examples(*raw.arrays["test"])
    other = prepared(raw, tmp_path / "other", *limits, "split_seed=1")
    assert split_examples(other, "train", "validation") == kept


def test_limits_above_the_number_of_examples_change_nothing(whole: Dataset, raw: ArraySource, tmp_path: Path) -> None:
    limits = ("validation_fraction=0.2", "max_train=60000", "max_test=60000")
    assert prepared(raw, tmp_path / "prepared", *limits).fingerprint == whole.fingerprint


def test_a_fraction_too_small_takes_one_of_each_class(raw: ArraySource, tmp_path: Path) -> None:
    dataset = prepared(raw, tmp_path / "prepared", "validation_fraction=0.001")
    assert dataset.facts.class_counts["validation"] == [1] * 10


def test_classes_of_one_image_cannot_be_divided(tmp_path: Path) -> None:
    single = ArraySource({"train": arrays(*range(20)), "test": arrays(*range(20))}, None)
    with pytest.raises(UserError, match=r"data\.validation_fraction = 0\.2: leaves none of 20 examples, .*allowed"):
        prepared(single, tmp_path / "prepared", "validation_fraction=0.2")


def test_no_fraction_takes_all_of_a_class(raw: ArraySource, tmp_path: Path) -> None:
    dataset = prepared(raw, tmp_path / "prepared", "validation_fraction=0.999", "max_train=100")
    assert dataset.facts.class_counts["train"] == [1] * 10


def arrays(*labels: int, shape: tuple[int, ...] = (4, 4, 1), dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(len(labels)).integers(0, 256, (len(labels), *shape)).astype(dtype), np.array(labels)


GOOD = {"train": arrays(*[0, 1] * 10), "test": arrays(0, 1)}
UNFIT: dict[str, tuple[ArraySource, str, str]] = {
    "no image": (ArraySource(GOOD | {"test": arrays()}, None), "", "no image for test"),
    "floats": (
        ArraySource(GOOD | {"test": arrays(0, dtype=float)}, None),
        "",
        "test 0: float64 .*allowed: uint8 in 1 or 3",
    ),
    "four channels": (ArraySource(GOOD | {"test": arrays(0, shape=(4, 4, 4))}, None), "", "test 0: .*allowed: uint8"),
    "another size": (ArraySource(GOOD | {"test": arrays(0, shape=(4, 5, 1))}, None), "", "4x4 pixels, test 0 5x4"),
    "a negative label": (ArraySource(GOOD | {"test": arrays(-1)}, None), "", "labels from -1 to 1; allowed: 0 to 1"),
    "a class too few": (ArraySource(GOOD, ("a",)), "", "1 classes, and labels from 0 to 1; allowed: 0 to 0"),
    "a name too few": (
        ArraySource(GOOD | {"test": arrays(2)}, ("a", "b", "c")),
        "classes=[x,y]",
        r"data\.classes = \['x', 'y'\]: 2 classes, and labels from 0 to 2; allowed: 0 to 1",
    ),
    "a name twice": (ArraySource(GOOD, ("a", "a")), "", "several classes have the name a; set data.classes"),
}


@pytest.mark.parametrize(("source", "override", "message"), UNFIT.values(), ids=UNFIT)
def test_examples_that_do_not_fit_are_refused(tmp_path: Path, source: ArraySource, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepared(source, tmp_path / "prepared", "validation_fraction=0.2", *filter(None, [override]))
    assert not list((tmp_path / "prepared").rglob("*.unordered"))


@pytest.mark.parametrize(
    ("names", "override", "wanted"),
    [(None, "", ("0", "1")), (("a", "b"), "", ("a", "b")), (("a", "b"), "classes=[x,y,z]", ("x", "y", "z"))],
)
def test_the_names_of_the_classes_are_those_given_or_those_of_the_source(
    tmp_path: Path, names: tuple[str, ...] | None, override: str, wanted: tuple[str, ...]
) -> None:
    given = ["validation_fraction=0.2", *filter(None, [override])]
    assert prepared(ArraySource(GOOD, names), tmp_path / "prepared", *given).classes == wanted


@pytest.mark.parametrize(
    ("upstream", "given", "message"),
    [
        (("cat", "dog"), "[dog,cat]", "calls the images of cat (label 0) dog, which is the name of label 1"),
        (("cat", "dog", "owl"), "[cat,owl,x]", "calls the images of dog (label 1) owl, which is the name of label 2"),
        (
            ("0 - zero", "1 - one"),
            "['1','0']",
            "calls the images of 0 - zero (label 0) 1, which is the name of label 1",
        ),
    ],
)
def test_names_of_fixed_labels_cannot_be_reordered(
    tmp_path: Path, upstream: tuple[str, ...], given: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        prepared(ArraySource(GOOD, upstream), tmp_path / "prepared", "validation_fraction=0.2", f"classes={given}")


def test_images_that_are_all_the_same_are_prepared(tmp_path: Path) -> None:
    one = np.zeros((20, 4, 4, 1), np.uint8), np.arange(20) % 2
    dataset = prepared(ArraySource({"train": one, "test": one}, None), tmp_path / "prepared", "validation_fraction=0.2")
    assert dataset.facts.test_images_in_train == 20
    assert dataset.facts.channel_std == [0.0]


def test_a_validation_part_of_upstream_is_kept(tmp_path: Path) -> None:
    dataset = prepared(ArraySource(GOOD | {"validation": arrays(1, 1, 0)}, None), tmp_path / "prepared", "max_train=20")
    assert dataset.facts.examples == {"train": 20, "validation": 3, "test": 2}
    assert split_examples(dataset, "validation") == examples(*arrays(1, 1, 0))


def test_what_defines_the_bytes_is_not_where_they_came_from() -> None:
    def source(*overrides: str) -> object:
        return source_of(compose(overrides).data)

    assert source("data=mnist") == source("data=mnist", "data.provider=tfds", "data.mirror=/a")
    assert source("data=folder", "data.root=a") == source("data=folder", "data.root=b")
    assert source("data=torchvision", "data.name=svhn") != source("data=tfds", "data.name=svhn")
    for override in (
        "data.size=8",
        "data.split_seed=1",
        "data.channels=3",
        "data.options={a: 1}",
        "data.max_train=100",
    ):
        assert source("data=mnist", override) != source("data=mnist")


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
    raw: ArraySource, tmp_path: Path, part: str, damage: Callable[[Path], object]
) -> None:
    few = first_hundred(raw)
    dataset = prepared(few, tmp_path / "prepared", "validation_fraction=0.2")
    damage(dataset.folder / "validation" / f"{part}.npy")
    with pytest.raises(UserError, match=rf"validation/{part}\.npy: cannot be read .*dvc repro prepare"):
        dataset.split("validation")
    dataset.split("train")
