"""The data on one page: of every shape and number of classes, whatever they are called, once in MLflow."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from sqlalchemy.exc import SADeprecationWarning

from pipeline import describe
from pipeline.config.compose import compose, write
from pipeline.core.errors import UserError
from pipeline.data import pixels
from pipeline.data.array_file import ArrayFile
from pipeline.data.build import write_dataset
from pipeline.data.cache import make, obtain
from pipeline.data.dataset import Dataset, Split
from pipeline.data.providers import ArraySource
from pipeline.reports.figures import data as figures
from pipeline.tracking import views
from pipeline.tracking.runs import Run
from pipeline.tracking.tracker import Tracker

pytestmark = pytest.mark.xdist_group("describe")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FILES = {"classes.png", "description.json", "index.html", "pixels.png", "samples.png"}
TRACKING = compose().tracking


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one MLflow store for all of these tests."""
    return tmp_path_factory.mktemp("describe")


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(home)


@pytest.fixture
def chromium() -> Iterator[Page]:
    if not CHROMIUM:
        pytest.skip("no chromium on PATH: apt install chromium, or set CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


def _made(
    folder: Path, shape: tuple[int, int, int], names: Sequence[str], *, each: int = 6, parts: Sequence[str] = ("train",)
) -> Dataset:
    """Random images, `each` of every class in every part."""
    generator = np.random.default_rng(len(names))
    labels = np.tile(np.arange(len(names), dtype=np.int64), each)
    arrays = {part: (generator.integers(0, 256, (len(labels), *shape), np.uint8), labels) for part in parts}
    folder.mkdir(parents=True)
    return write_dataset(ArraySource(arrays, names), compose(["data.validation_fraction=0.2"]).data, folder)


def _described(dataset: Dataset, output: Path) -> tuple[str, dict[str, Any]]:
    """The page and its JSON file."""
    describe.describe(dataset, output, TRACKING)
    assert {path.name for path in output.iterdir()} == FILES
    return (output / "index.html").read_text(), json.loads((output / "description.json").read_text())


def _shown(page: str) -> list[Image.Image]:
    """The images of the classes on a page."""
    found = re.findall(r'<img (?:class="mean" )?src="data:image/\w+;base64,([^"]+)" alt', page)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def _runs(condition: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()], condition))


# what the page shows --------------------------------------------------------------------------------


def test_the_page_of_the_sample_tells_what_is_in_the_data(home: Path, tmp_path: Path) -> None:
    dataset = obtain(compose(["data.max_train=300", "data.max_test=60"]).data, home)
    page, told = _described(dataset, tmp_path)
    assert told.items() >= json.loads(dataset.facts.model_dump_json()).items()
    assert dataset.fingerprint in page
    assert "mnist_sample: 360 images in 10 classes" in page
    assert str(told["balance"]) in page
    for part in ("summary", "classes", "samples", "pixels", "settings"):
        assert f'id="{part}"' in page
    assert 'id="skipped"' not in page
    histogram = np.array(told["pixel_histogram"])
    assert histogram.sum() == dataset.facts.examples["train"] * 28 * 28
    assert histogram[0] @ np.arange(256) / 255 / histogram.sum() == pytest.approx(dataset.facts.channel_mean[0])
    train = dataset.split("train")
    for name, places in told["shown"].items():
        assert {dataset.classes[train.labels[place]] for place in places} == {name}
    assert sum(map(len, told["shown"].values())) + 10 == len(_shown(page))


def test_a_page_needs_nothing_but_itself_and_the_same_data_give_the_same_page(home: Path, tmp_path: Path) -> None:
    dataset = _made(tmp_path / "data", (8, 8, 3), ("a", "b", "c"))
    page, _ = _described(dataset, tmp_path / "one")
    assert not re.search(r"""(src|href)=(?!"data:)""", page)
    assert "@import" not in page
    assert "<script" not in page
    pages = [re.sub('data:image/svg[^"]*', "", text) for text in (page, _described(dataset, tmp_path / "other")[0])]
    assert pages[0] == pages[1]  # in an SVG names of parts are hashes of places, which differ in the last bit
    for name in FILES - {"index.html"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


SHAPES = {
    "2 classes, large and in colour": ((224, 160, 3), 2, (57, 80), 11),
    "10 classes, small and grey": ((28, 28, 1), 10, (56, 56), 12),
    "25 classes, in colour": ((32, 32, 3), 25, (64, 64), 10),
    "26 classes, in two columns": ((32, 32, 3), 26, (64, 64), 4),
    "120 classes": ((8, 8, 1), 120, (80, 80), 3),
    "one pixel high": ((1, 300, 1), 3, (80, 1), 8),
}


@pytest.mark.parametrize(("shape", "classes", "size", "most"), SHAPES.values(), ids=SHAPES)
def test_every_shape_and_number_of_classes_has_its_sheet(
    tmp_path: Path, shape: tuple[int, int, int], classes: int, size: tuple[int, int], most: int
) -> None:
    dataset = _made(tmp_path / "data", shape, [f"class {i}" for i in range(classes)], each=20)
    page, told = _described(dataset, tmp_path / "out")
    rows = min(classes, 100)
    assert figures.tile_size(*shape[:2]) == size
    assert {len(places) for places in told["shown"].values()} == {most}
    assert list(told["shown"])[-1] == f"class {classes - 1}"
    assert len(_shown(page)) == rows * (most + 1)
    assert ("100 of 120 classes" in page) == (classes == 120)
    sheet = Image.open(tmp_path / "out/samples.png")
    columns = 1 if rows <= 25 else 2
    assert columns * (size[0] + 4) * (most + 1) < sheet.width < 1300
    assert -(-rows // columns) * size[1] < sheet.height < 6000
    with Image.open(tmp_path / "out/classes.png") as counts:
        assert counts.width == 1100
        assert counts.height < 1300


def test_a_small_image_is_enlarged_pixel_by_pixel(tmp_path: Path) -> None:
    dataset = _made(tmp_path / "data", (28, 28, 1), ("a", "b"))
    _, told = _described(dataset, tmp_path / "out")
    sheet = np.array(Image.open(tmp_path / "out/samples.png").convert("L"))
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (56, 56))
    train = dataset.split("train").images
    for places in told["shown"].values():
        for place in places:
            wanted = np.kron(train[place][..., 0], np.ones((2, 2), np.uint8))
            assert (windows[..., 0, :] == wanted[0]).all(axis=-1).any()
            (top, left), *_ = np.argwhere((windows[..., 0, :] == wanted[0]).all(axis=-1))
            assert np.array_equal(windows[top, left], wanted)


def test_classes_of_one_image_or_none_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ("one", "none", "many")
    labels = {"train": [0, 2, 2, 2, 2, 2], "validation": [2, 0], "test": [2, 2, 1]}
    generator = np.random.default_rng(0)
    arrays = {
        part: (generator.integers(0, 256, (len(y), 9, 7, 3), np.uint8), np.array(y)) for part, y in labels.items()
    }
    (tmp_path / "data").mkdir()
    dataset = write_dataset(ArraySource(arrays, names), compose().data, tmp_path / "data")
    page, told = _described(dataset, tmp_path / "out")
    assert {name: len(places) for name, places in told["shown"].items()} == {"one": 1, "none": 0, "many": 5}
    assert told["notes"] == [
        "Without a train image: none.",
        "Without a validation image: none.",
        "Without a test image: one.",
    ]
    assert len(_shown(page)) == 6 + 2
    mean, image = _shown(page)[:2]
    assert np.array_equal(np.array(mean), np.array(image))
    assert 'class="verdict open"' in page


def test_what_a_training_would_suffer_from_is_said(tmp_path: Path) -> None:
    dataset = _made(tmp_path / "data", (8, 8, 1), ("a", "b"), parts=("train", "test"))
    assert 'class="verdict "' in _described(dataset, tmp_path / "good")[0]
    facts = dataset.facts.model_copy(
        update={"test_images_in_train": 3, "skipped": {f"{i}.png": "truncated" for i in range(60)}}
    )
    page, told = _described(Dataset(dataset.folder, facts), tmp_path / "bad")
    assert 'class="verdict open"' in page
    assert "3 of 12 test images (25.0%) are in the training split as well" in page
    assert "Images left out, as they cannot be decoded: 60." in page
    assert "<td>49.png</td>" in page
    assert "<td>50.png</td>" not in page
    assert len(told["skipped"]) == 60


@pytest.mark.parametrize("shape", [(5, 4, 3), (301, 130, 1)], ids=str)
def test_a_walk_in_pieces_counts_and_averages_as_numpy_does(
    tmp_path: Path, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "CHUNK_BYTES", 3 * int(np.prod(shape)))
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    labels = np.arange(20) % 3
    np.save(tmp_path / "images.npy", images)
    found = pixels.survey(Split(ArrayFile.open(tmp_path / "images.npy"), labels), [0, 2, 7])
    for channel, counted in enumerate(found.histogram):
        assert np.array_equal(counted, np.bincount(images[..., channel].ravel(), minlength=256))
    assert found.means.keys() == {0, 2}
    for label, mean in found.means.items():
        assert max(mean.shape[:2]) <= 128
        own = images[labels == label].mean(axis=0)
        if shape == (301, 130, 1):
            own = own[:300].reshape(100, 3, 65, 2, 1).mean(axis=(1, 3))
        assert np.abs(mean - own).max() < 0.5001


# whose names are a user's -----------------------------------------------------------------------------

HOSTILE = ("<script>alert(1)<script>", '" onload="alert(2)', "$x_{", "a & b_" * 20, "山雀\tやま", "*|`[x](y)")
CORRUPT = "<img src=x onerror=alert(3)>.png"


@pytest.fixture(scope="module")
def hostile(home: Path) -> Path:
    """A page about a user's folder with names that are markup somewhere, and what was written to MLflow."""
    root = home / "images"
    for number, name in enumerate(HOSTILE):
        (root / name).mkdir(parents=True)
        for image in range(4):
            Image.new("RGB", (9, 9), (40 * number, 60 * image, 0)).save(root / name / f"{image}.png")
    (root / HOSTILE[0] / CORRUPT).write_bytes(b"not an image")
    data = compose(["data=folder", f"data.root={root}", "data.corrupt=skip", "data.validation_fraction=0.3"]).data
    make(data, home / "hostile/prepared")
    with warnings.catch_warnings(), contextlib.chdir(home):  # this comes before `_at_home`
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SADeprecationWarning)  # MLflow's own, once in a process
        describe.describe(Dataset.open(home / "hostile/prepared"), home / "hostile/page", TRACKING)
    return home / "hostile/page/index.html"


def test_names_are_text_and_no_markup(hostile: Path) -> None:
    page = hostile.read_text(encoding="utf-8")
    for markup in ("<script", "<img src=x", 'onload="'):
        assert markup not in page
    assert "&lt;script&gt;alert(1)&lt;script&gt;" in page
    assert "&lt;img src=x onerror=alert(3)&gt;.png" in page
    fingerprint = json.loads(hostile.with_name("description.json").read_text())["fingerprint"]
    (run,) = _runs(f"tags.`data.fingerprint` = '{fingerprint}'")
    assert "<script" not in run.data.tags["mlflow.note.content"]


def test_a_browser_shows_it_and_runs_nothing(hostile: Path, chromium: Page) -> None:
    said: list[str] = []
    asked: list[str] = []
    chromium.on("console", lambda message: said.append(message.text))
    chromium.on("pageerror", lambda error: said.append(str(error)))
    chromium.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    chromium.on("request", lambda request: asked.append(request.url))
    chromium.goto(f"file://{hostile}")
    assert chromium.locator("h1").inner_text() == "folder: 24 images in 6 classes"
    for name in HOSTILE:
        assert " ".join(name.split()) in " ".join(chromium.locator("#samples").inner_text().split())
    assert CORRUPT in chromium.locator("#skipped").inner_text()
    whole = chromium.locator("img").evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0)")
    assert len(whole) == 2 + len(_shown(hostile.read_text(encoding="utf-8"))) == 20
    assert all(whole)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 1280
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


# once in MLflow ---------------------------------------------------------------------------------------


def test_the_stage_logs_each_data_set_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(compose(), tmp_path / "params.yaml")
    said = []
    for names in (("a", "b"), ("a", "b"), ("a", "b", "c")):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        _made(tmp_path / "data/prepared", (8, 8, 1), names)
        describe.main(["--params", "params.yaml"])
        said.append(capsys.readouterr().out.splitlines()[-1])
    found = _runs(views.DATA)
    assert len(found) == 2
    assert said[0] == said[1] != said[2]
    run = found[0]
    assert run.info.run_id in said[2]
    assert run.info.run_name == "data mnist_sample"
    assert run.info.status == "FINISHED"
    facts = Dataset.open(tmp_path / "data/prepared").facts
    assert run.data.tags["data.fingerprint"] == facts.fingerprint
    assert run.data.metrics["data/train_images"] == facts.examples["train"]
    assert run.data.metrics["data/classes"] == 3
    assert run.data.params["data.provider"] == "bundled"
    assert "3 classes" in run.data.tags["mlflow.note.content"]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == facts.fingerprint
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == FILES
    assert not _runs(views.GROUPS) + _runs(views.SEEDS)  # nor does it show among the trainings


def test_a_run_that_failed_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _made(tmp_path / "data", (8, 8, 1), ("x", "y", "z", "w"))

    def fail(*_: object, **__: object) -> None:
        raise UserError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Run, "log_dataset", fail)
        with pytest.raises(UserError, match="disk full"):
            _described(dataset, tmp_path / "out")
    _described(dataset, tmp_path / "out")
    runs = _runs(f"{views.DATA} and tags.`data.fingerprint` = '{dataset.fingerprint}'")
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


def test_a_source_that_two_libraries_share_has_a_page(tmp_path: Path) -> None:
    images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 2
    images[:, 0, 0, 0] = np.arange(20)
    (tmp_path / "data").mkdir()
    data = compose(["data=mnist", "data.classes=[a,b]", "data.validation_fraction=0.2"]).data
    page, _ = _described(
        write_dataset(ArraySource({"train": (images, labels)}, None), data, tmp_path / "data"), tmp_path / "o"
    )
    assert "mnist: 20 images in 2 classes" in page


def test_its_saved_view_and_its_link_are_in_the_ui() -> None:
    tracker = Tracker(TRACKING, Path.cwd())
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    assert json.loads(tags[f"{views.TAG}data"])["name"] == "Data: one row per data set"
    assert "viewStateShareKey=data" in tags[views.NOTE]


# mistakes ---------------------------------------------------------------------------------------------


def test_outside_of_the_pipeline_the_data_that_are_asked_for_are_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    _made(tmp_path / "data/prepared", (8, 8, 1), ("a", "b"))
    describe.main(["data.max_train=200", "data.max_test=50", "--output", "page"])
    said = json.loads((tmp_path / "page/description.json").read_text())
    assert (len(said["classes"]), said["examples"]["test"]) == (10, 50)


def test_data_that_are_not_there_or_too_old_end_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(compose(), tmp_path / "params.yaml")
    dataset = _made(tmp_path / "elsewhere", (8, 8, 1), ("a", "b"))
    kept = {key: value for key, value in dataset.facts.model_dump().items() if key != "test_images_in_train"}
    for place, message in {
        "nothing": "cannot be read .*run `dvc repro prepare`",
        "old": "has no test_images_in_train",
    }.items():
        if place == "old":
            (tmp_path / "data/prepared").mkdir(parents=True)
            (tmp_path / "data/prepared/dataset.json").write_text(json.dumps(kept))
        with pytest.raises(SystemExit) as ended:
            describe.main(["--params", "params.yaml"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert re.fullmatch(f"error: data/prepared/dataset.json: {message}.*\n", said)
