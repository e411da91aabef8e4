"""The libraries' own data sets: MNIST as it is published, and others with files of ours that their code accepts."""

import hashlib
import json
import pickle
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from libraries import MNIST_FILES, PROVIDERS, assert_refused, library, needs_mnist_files
from made_up import beside_a_mirror, examples, held, jpeg, md5, noise, prepare, tar
from project_copy import clean_environment
from scipy.io import savemat

from pipeline.config.compose import compose
from pipeline.data.dataset import SPLITS, Dataset
from pipeline.data.idx import write_idx

pytestmark = pytest.mark.xdist_group("libraries")
AS_PUBLISHED = ("data.validation_fraction=0.05", f"data.mirror={MNIST_FILES}")
MNIST = "4fac86becd15ae0de0d0c534b6277258"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty folder for stages to run in, beside one for a mirror."""
    return beside_a_mirror(tmp_path)


def files(dataset: Dataset) -> dict[str, bytes]:
    return {str(path.relative_to(dataset.folder)): path.read_bytes() for path in dataset.folder.rglob("*.*")}


# MNIST, as it is published ------------------------------------------------------------------------

OBTAIN = """
import json, sys
from pathlib import Path
from pipeline.config.compose import compose
from pipeline.data.cache import obtain
from pipeline.core.errors import UserError

def asked_for(provider, mirror):
    data = compose(["data=mnist", f"data.provider={provider}", f"data.mirror={mirror}"]).data
    return obtain(data, Path("of " + provider))

try:
    asked_for("tfds", "/no/such/folder")
except UserError as error:
    print(error)
for provider in ("torchvision", "tfds"):
    folder = asked_for(provider, sys.argv[1]).folder
    loaded = sorted({"torch", "torchvision", "tensorflow", "tensorflow_datasets"} & sys.modules.keys())
    print(json.dumps([str(folder.absolute()), loaded]))
"""


@needs_mnist_files
def test_both_libraries_prepare_mnist_to_the_same_bytes_and_load_nothing_into_who_asks(workspace: Path) -> None:
    datasets = []
    for provider in PROVIDERS:
        (workspace / provider).mkdir()
        datasets.append(prepare(provider, workspace / provider, "data=mnist", *AS_PUBLISHED))
    command = [sys.executable, "-c", OBTAIN, str(MNIST_FILES)]
    asked = subprocess.run(command, cwd=workspace, env=clean_environment(), capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("data.mirror = /no/such/folder: ")
    answers = [json.loads(line) for line in asked.stdout.splitlines() if line.startswith("[")]
    assert all(Path(folder).parent.name == "cache" for folder, _ in answers)
    assert [loaded for _, loaded in answers] == [[], []]
    datasets += [Dataset.open(Path(folder)) for folder, _ in answers]
    assert [dataset.fingerprint for dataset in datasets] == [MNIST] * 4
    first = files(datasets[0])
    assert len(first) == 7
    assert all(files(dataset) == first for dataset in datasets[1:])
    assert datasets[0].facts.examples == {"train": 57_000, "validation": 3_000, "test": 10_000}


# CIFAR-10 in both libraries -----------------------------------------------------------------------


def declare(name: str, **attributes: Any) -> None:
    """Have a class of torchvision say other checksums; all of its code is its own."""
    each = "for key, value in attributes.items():\n    setattr(getattr(datasets, name), key, value)"
    library("torchvision").do(f"from torchvision import datasets\n{each}", name=name, attributes=attributes)


def declare_tfds(name: str, url: str, path: Path) -> None:
    """The same of tensorflow-datasets."""
    library("tfds").do(
        "import tensorflow_datasets as tfds\n"
        "from tensorflow_datasets.core.download.checksums import UrlInfo\n"
        "tfds.builder_cls(name).url_infos[url] = UrlInfo(size, checksum, filename)",
        name=name,
        url=url,
        size=path.stat().st_size,
        checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
        filename=path.name,
    )


def test_both_libraries_prepare_colour_images_to_the_same_bytes(workspace: Path) -> None:
    mirror, names = workspace.parent / "mirror", compose(["data=cifar10"]).data.classes
    batches = {f"data_batch_{n}": noise(40, 32, 32, 3) for n in range(1, 6)} | {"test_batch": noise(30, 32, 32, 3)}
    rows = {name: images.transpose(0, 3, 1, 2).reshape(len(labels), -1) for name, (images, labels) in batches.items()}
    python = {
        name: pickle.dumps({"data": rows[name], "labels": labels.tolist()}) for name, (_, labels) in batches.items()
    } | {"batches.meta": pickle.dumps({"label_names": names})}
    binary = {
        f"{name}.bin": np.column_stack([labels.astype(np.uint8), rows[name]]).tobytes()
        for name, (_, labels) in batches.items()
    } | {"batches.meta.txt": "\n".join(names or []).encode()}
    tar(mirror / "cifar-10-python.tar.gz", {f"cifar-10-batches-py/{name}": python[name] for name in python})
    tar(mirror / "cifar-10-binary.tar.gz", {f"cifar-10-batches-bin/{name}": binary[name] for name in binary})
    declare(
        "CIFAR10",
        tgz_md5=md5(mirror / "cifar-10-python.tar.gz"),
        train_list=[[name, md5(python[name])] for name in batches if name != "test_batch"],
        test_list=[["test_batch", md5(python["test_batch"])]],
        meta={"filename": "batches.meta", "key": "label_names", "md5": md5(python["batches.meta"])},
    )
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    declare_tfds("cifar10", url, mirror / "cifar-10-binary.tar.gz")
    datasets = []
    for provider in PROVIDERS:
        (workspace / provider).mkdir()
        datasets.append(prepare(provider, workspace / provider, "data=cifar10", f"data.mirror={mirror}"))
    one, other = datasets
    assert files(one) == files(other)
    assert one.image_shape == (32, 32, 3)
    assert one.facts.examples == {"train": 160, "validation": 40, "test": 30}
    assert held(one, "test") == examples(*batches.pop("test_batch"))
    assert held(one, "train", "validation") == sum((examples(*batch) for batch in batches.values()), Counter())


def test_an_archive_of_ours_under_the_name_of_theirs_is_refused(workspace: Path) -> None:
    tar(workspace.parent / "mirror/cifar-100-python.tar.gz", {"cifar-100-python/train": b"ours"})
    arguments = ["data=torchvision", "data.name=cifar-100", f"data.mirror={workspace.parent / 'mirror'}"]
    done = library("torchvision").run(workspace, "download", *arguments)
    ours = md5(workspace.parent / "mirror/cifar-100-python.tar.gz")
    assert_refused(done, "cifar-100-python.tar.gz", ours, "eb9058c3a382ffc7106e4002c42a8d85")


# further sets of torchvision ----------------------------------------------------------------------


def test_a_set_with_named_splits(workspace: Path) -> None:
    batches = {"train": noise(60, 32, 32, 3), "test": noise(20, 32, 32, 3)}
    splits = {}
    for name, (images, labels) in batches.items():
        path = workspace.parent / f"mirror/{name}_32x32.mat"
        savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        splits[name] = [f"http://ufldl.stanford.edu/housenumbers/{path.name}", path.name, md5(path)]
    declare("SVHN", split_list=splits)
    dataset = prepare("torchvision", workspace, "data=torchvision", "data.name=svhn")
    assert dataset.classes == tuple("0123456789")
    assert held(dataset, "train", "validation") == examples(*batches["train"])
    assert held(dataset, "test") == examples(*batches["test"])


def test_a_set_without_a_test_part_gets_one_of_each_class(workspace: Path) -> None:
    images, labels = noise(100, 16, 16)
    images //= 128
    table = np.column_stack([images.reshape(100, -1), np.eye(10, dtype=int)[labels]])
    np.savetxt(workspace.parent / "mirror/semeion.data", table, "%d")
    declare("SEMEION", md5_checksum=md5(workspace.parent / "mirror/semeion.data"))
    dataset = prepare("torchvision", workspace, "data=torchvision", "data.name=SEMEION", "data.test_fraction=0.3")
    assert dataset.facts.class_counts["test"] == [3] * 10
    assert held(dataset, *SPLITS) == examples(images * 255, labels)


def test_a_set_with_options(workspace: Path) -> None:
    batches = {"train": noise(130, 28, 28, classes=26), "test": noise(52, 28, 28, classes=26)}
    with zipfile.ZipFile(workspace.parent / "mirror/gzip.zip", "w") as archive:
        for part, (images, labels) in batches.items():
            for kind, array in {"images-idx3": images, "labels-idx1": (labels + 1).astype(np.uint8)}.items():
                write_idx(workspace / "one.gz", array)
                archive.write(workspace / "one.gz", f"gzip/emnist-letters-{part}-{kind}-ubyte.gz")
    declare("EMNIST", md5=md5(workspace.parent / "mirror/gzip.zip"))
    dataset = prepare("torchvision", workspace, "data=torchvision", "data.name=emnist", "data.options={split: letters}")
    assert dataset.classes == ("N/A", *"abcdefghijklmnopqrstuvwxyz")
    assert held(dataset, "test") == examples(batches["test"][0], batches["test"][1] + 1)


def pets(workspace: Path, *, corrupt: int = -1, outside: str = "") -> None:
    """A set in two archives, with pictures of several sizes, one of them not readable."""
    images, lists = {}, {"trainval": "", "test": ""}
    for number in range(60):
        name, part = f"{('Abyssinian', 'beagle')[number % 2]}_{number}", "test" if number % 3 == 0 else "trainval"
        images[f"images/{name}.jpg"] = b"no JPEG" if number == corrupt else jpeg(20 + number, 30, 4 * number)
        lists[part] += f"{name} {number % 2 + 1} {number % 2 + 1} 1\n"
    annotations = {f"annotations/{name}.txt": text.encode() for name, text in lists.items()}
    annotations["annotations/trimaps/beagle_1.png"] = jpeg(21, 30, 4)
    if outside:
        images[outside] = b"evil"
    mirror = workspace.parent / "mirror"
    tar(mirror / "images.tar.gz", images)
    tar(mirror / "annotations.tar.gz", annotations)
    declare("OxfordIIITPet", _RESOURCES=[[f"http://127.0.0.1/{path.name}", md5(path)] for path in mirror.iterdir()])


PETS = ("data=torchvision", "data.name=oxford_iiit_pet")


def test_a_set_whose_training_part_is_called_otherwise_and_whose_sizes_differ(workspace: Path) -> None:
    pets(workspace)
    dataset = prepare("torchvision", workspace, *PETS, "data.size=8")
    assert dataset.image_shape == (8, 8, 3)
    assert dataset.classes == ("Abyssinian", "Beagle")
    assert dataset.facts.examples["test"] == 20
    assert_refused(library("torchvision").run(workspace, "prepare", *PETS), "data.size = None", "pixels, train 1 ")
    assert Dataset.open(workspace / "data/prepared").fingerprint == dataset.fingerprint


def test_an_image_that_torchvision_cannot_read_is_named_or_left_out(workspace: Path) -> None:
    pets(workspace, corrupt=31)
    dataset = prepare("torchvision", workspace, *PETS, "data.size=8", "data.corrupt=skip")
    assert list(dataset.facts.skipped) == ["train 20"]
    assert sum(dataset.facts.examples.values()) == 59
    done = library("torchvision").run(workspace, "prepare", *PETS, "data.size=8")
    assert_refused(done, "cannot be decoded", "train 20: cannot identify", "data.corrupt=skip")


@pytest.mark.parametrize("outside", ["../../../evil.txt", "images/../../../../evil.txt"])
def test_an_archive_that_reaches_out_of_its_folder_is_refused(workspace: Path, outside: str) -> None:
    pets(workspace, outside=outside)
    given = [*PETS, f"data.mirror={workspace.parent / 'mirror'}"]
    done = library("torchvision").run(workspace, "download", *given)
    assert_refused(done, "evil.txt", "outside")
    assert not list(workspace.parent.rglob("evil.txt"))


@pytest.mark.parametrize("target", ["[category,binary-category]", "segmentation"])
def test_targets_that_are_no_classes_are_refused(workspace: Path, target: str) -> None:
    pets(workspace)
    given = [*PETS, f"data.mirror={workspace.parent / 'mirror'}", f"data.options={{target_types: {target}}}"]
    done = library("torchvision").run(workspace, "download", *given)
    assert_refused(done, "data.options" if "[" in target else "allowed: a set of images with one class each")


# what is refused ----------------------------------------------------------------------------------

REFUSED: dict[tuple[str, str], tuple[str, ...]] = {
    ("torchvision", "data.name=imagenet1k"): ("data.name = imagenet1k: ", "allowed: CIFAR10, CIFAR100", "USPS"),
    ("torchvision", "data.name=FakeData"): ("data.name = FakeData: ", "allowed: CIFAR10"),
    ("torchvision", "data.name=celeb_a"): ("data.name = celeb_a: not a set of labelled images", "allowed: CIFAR10"),
    ("torchvision", "data.name=mnist/digits"): ("data.name = mnist/digits: ", "allowed: CIFAR10"),
    ("torchvision", "data.name=emnist"): ("data.options.split: EMNIST", "byclass", "letters"),
    ("torchvision", "data.name=emnist data.options={split: greek}"): ("greek", "byclass", "letters"),
    ("torchvision", "data.name=mnist data.options={colour: true}"): ("data.options", "colour"),
    ("torchvision", "data.name=mnist data.options={root: elsewhere}"): ("data.options", "root"),
    ("tfds", "data.name=cifar_10"): ("data.name = cifar_10: not a data set", "did you mean cifar10"),
    ("tfds", "data.name=zzzzzz"): ("data.name = zzzzzz: not a data set of tensorflow-datasets; tfds.list_builders()",),
    ("tfds", "data.name=mnist/digits"): ("mnist", "digits"),
    ("tfds", "data.name=coco"): ("data.name = coco: ", "allowed: a set with ('Image', 'ClassLabel')"),
    ("tfds", "data.name=imdb_reviews"): ("data.name = imdb_reviews: ", "'Text'", "allowed: a set with"),
    ("tfds", "data.name=imagenet2012"): ("imagenet2012", "anual"),
    ("tfds", "data.name=mnist data.options={colour: true}"): ("data.options", "colour"),
    ("tfds", "data.name=mnist data.options={data_dir: elsewhere}"): ("data.options", "data_dir"),
}


@pytest.mark.parametrize(("asked", "parts"), REFUSED.items(), ids=[" ".join(key) for key in REFUSED])
def test_what_a_library_cannot_give_is_refused_with_what_it_can(
    workspace: Path, asked: tuple[str, str], parts: tuple[str, ...]
) -> None:
    provider, overrides = asked
    given = [overrides] if overrides.count("=") == 1 else overrides.split(" ", 1)
    done = library(provider).run(workspace, "download", f"data={provider}", *given)
    assert_refused(done, *parts)
    assert list((workspace / "data").iterdir()) == []
