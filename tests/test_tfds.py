"""Data sets of one's own, as tensorflow-datasets wants them: a module, and the checksum of its files beside it."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from libraries import assert_refused, library
from made_up import beside_a_mirror, examples, held, jpeg, prepare, tar
from PIL import Image
from servers import served

from pipeline.data.dataset import SPLITS

pytestmark = pytest.mark.xdist_group("libraries")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty folder for stages to run in, beside one for a mirror."""
    return beside_a_mirror(tmp_path)


TINY = '''
import io
import numpy as np
import tensorflow_datasets as tfds

SPLITS, URL = {splits!r}, {url!r}

class {name}(tfds.core.GeneratorBasedBuilder):
    """Dots."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {{"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["cat", "dog"])}}
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager):
        folder = dl_manager.download_and_extract(URL)
        return {{split: self._generate_examples(folder, split) for split in SPLITS}}

    def _generate_examples(self, folder, split):
        for number, path in enumerate(sorted(folder.glob(f"{{split}}/*"))):
            image = [path, path.read_bytes(), io.BytesIO(path.read_bytes())][number % 3]
            yield path.name, {{"image": image, "label": path.name[:3]}}
'''


def tiny(workspace: Path, name: str, *splits: str, corrupt: str = "", url: str = "http://127.0.0.1") -> None:
    """A data set of one's own, as tensorflow-datasets wants it: a module, and the checksum of its file beside it."""
    own = workspace.parent / name
    own.mkdir()
    archive = workspace.parent / f"mirror/{name}.tar.gz"
    members = {}
    for split in splits:
        for number in range(20):
            path = f"{split}/{('cat', 'dog')[number % 2]}{number}.jpg"
            members[path] = b"no JPEG" if path == corrupt else jpeg(9, 7, 10 * number + len(split))
    tar(archive, members)
    url = f"{url}/{archive.name}"
    text = TINY.format(splits=splits, url=url, name=name.title().replace("_", ""))
    (own / f"{name}.py").write_text(text)
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    (own / "checksums.tsv").write_text(f"{url}\t{archive.stat().st_size}\t{checksum}\t{archive.name}\n")
    library("tfds").do(
        "import importlib, sys; sys.path.insert(0, own); importlib.import_module(name)", own=str(own), name=name
    )


@pytest.mark.parametrize(
    ("name", "splits", "counts"),
    [
        ("tiny_whole", ("train", "validation", "test"), (20, 20, 20)),
        ("tiny_usual", ("train", "test"), (16, 4, 20)),
        ("tiny_validated", ("train", "validation"), (16, 4, 20)),
        ("tiny_one", ("train",), (12, 4, 4)),
    ],
)
def test_a_set_of_ones_own_is_fetched_from_its_address(
    workspace: Path, name: str, splits: tuple[str, ...], counts: tuple[int, ...]
) -> None:
    with served(workspace.parent / "mirror") as url:
        tiny(workspace, name, *splits, url=url)
        dataset = prepare("tfds", workspace, "data=tfds", f"data.name={name}", "data.mirror=null")
    assert tuple(dataset.facts.examples.values()) == counts
    assert dataset.classes == ("cat", "dog")
    assert dataset.image_shape == (7, 9, 3)
    wanted = Counter[tuple[bytes, int]]()
    for split in splits:
        images = [np.array(Image.open(io.BytesIO(jpeg(9, 7, 10 * number + len(split))))) for number in range(20)]
        wanted += examples(images, [number % 2 for number in range(20)])
    assert held(dataset, *SPLITS) == wanted


def test_an_image_that_tensorflow_datasets_cannot_read_is_named_or_left_out(workspace: Path) -> None:
    tiny(workspace, "tiny_corrupt", "train", "test", corrupt="train/dog3.jpg")
    arguments = ["data=tfds", "data.name=tiny_corrupt"]
    dataset = prepare("tfds", workspace, *arguments, "data.corrupt=skip")
    assert list(dataset.facts.skipped) == ["train dog3.jpg"]
    assert dataset.facts.class_counts["train"] == [8, 7]
    done = library("tfds").run(workspace, "prepare", *arguments)
    assert_refused(done, "train dog3.jpg", "data.corrupt=skip")


def test_a_set_without_a_training_part_is_refused(workspace: Path) -> None:
    tiny(workspace, "tiny_other", "all")
    mirror = f"data.mirror={workspace.parent / 'mirror'}"
    done = library("tfds").run(workspace, "download", "data=tfds", "data.name=tiny_other", mirror)
    assert_refused(done, "data.name = tiny_other: has the splits all; allowed: one named train")
