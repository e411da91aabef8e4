"""A user's own images: how they are split, and what is said where the folder is not as it should be."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from own_images import CONTENT, config, fill, held, put, refusal, run

from pipeline.data.cache import obtain
from pipeline.data.dataset import SPLITS


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)


# how they are split -------------------------------------------------------------------------------


def test_each_class_has_its_share_in_every_split(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=60, b=40, c=20)
    dataset = run("test_fraction=0.2", "validation_fraction=0.25")
    assert dataset.facts.class_counts == {"train": [36, 24, 12], "validation": [12, 8, 4], "test": [12, 8, 4]}
    assert held(dataset, *SPLITS) == Counter((CONTENT[n].tobytes(), "abc"[(n >= 60) + (n >= 100)]) for n in range(120))
    said = capsys.readouterr().out
    assert "folder: 72 train, 24 validation, 24 test; 5x6 colour; fingerprint " in said
    assert "3 classes, the largest a (36), the smallest c (12): 3.00 to 1; imbalanced" in said


def test_balanced_classes_are_not_called_imbalanced(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=20, b=10)
    run()
    said = capsys.readouterr().out
    assert "2.00 to 1" in said
    assert "imbalanced" not in said


def test_the_split_is_a_matter_of_its_seed() -> None:
    fill(a=40, b=40)
    one = run("test_fraction=0.2")
    splits = {name: held(one, name) for name in SPLITS}
    assert {name: held(run("test_fraction=0.2"), name) for name in SPLITS} == splits
    other = run("test_fraction=0.2", "split_seed=1")
    assert held(other, *SPLITS) == held(one, *SPLITS)
    assert all(held(other, name) != splits[name] for name in SPLITS)
    assert other.fingerprint != one.fingerprint
    fewer = run("test_fraction=0.2", "validation_fraction=0.5")
    assert held(fewer, "test") == splits["test"]


def test_neither_names_nor_place_nor_format_move_the_split() -> None:
    fill(a=40, b=40)
    one = run()
    before = {path: path.read_bytes() for path in one.folder.rglob("*.*")}
    for number in range(80):
        put(f"elsewhere/{'ab'[number // 40]}/deep/{CONTENT[number].sum()}-{number}.bmp", number)
    run("root=elsewhere")
    assert {path: path.read_bytes() for path in one.folder.rglob("*.*")} == before


LAYOUTS: list[tuple[dict[str, str], tuple[str, ...]]] = [
    ({"train": "train", "test": "test", "validation": "validation"}, ()),
    ({"train": "train", "test": "test", "val": "validation"}, ()),
    ({"Train": "train", "TEST": "test", "Valid": "validation"}, ()),
    ({"train": "train", "test": "test"}, ("validation",)),
    ({"train": "train", "validation": "validation"}, ("test",)),
    ({"train": "train"}, ("test", "validation")),
]


@pytest.mark.parametrize(("layout", "drawn"), LAYOUTS, ids=[" ".join(layout) for layout, _ in LAYOUTS])
def test_given_parts_are_kept_and_others_drawn(layout: Mapping[str, str], drawn: tuple[str, ...]) -> None:
    wanted: dict[str, Counter[tuple[bytes, str]]] = {}
    for number, (name, split) in enumerate(layout.items()):
        fill(f"images/{name}", start=50 * number, a=16, b=16)
        wanted[split] = Counter((CONTENT[50 * number + n].tobytes(), "ab"[n // 16]) for n in range(32))
    dataset = run("test_fraction=0.25")
    for split in wanted.keys() - {"train"}:
        assert held(dataset, split) == wanted[split]
    assert held(dataset, "train", *drawn) == wanted["train"]
    assert all(dataset.facts.examples.values())


def test_an_image_in_both_parts_is_counted() -> None:
    fill("images/train", a=8, b=8)
    fill("images/test", a=8, b=8)
    dataset = run()
    assert dataset.facts.test_images_in_train == dataset.facts.examples["train"]


def test_classes_may_be_called_like_parts() -> None:
    fill(car=8, plane=8, train=8)
    assert run().classes == ("car", "plane", "train")


def test_what_is_hidden_or_no_image_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    fill("images/a/.ipynb_checkpoints", a=3)
    fill("images/.git", a=3)
    fill("images/__MACOSX", a=3)
    Path("images/a/._1.png").write_bytes(b"")
    Path("images/a/notes.txt").touch()
    dataset = run()
    assert dataset.classes == ("a", "b")
    assert sum(dataset.facts.examples.values()) == 16
    said = capsys.readouterr().out
    assert "Left out, as their names do not end as those of images do (1): a/notes.txt" in said
    assert "Left out, as they are hidden (4): .git/, __MACOSX/, a/._1.png, a/.ipynb_checkpoints/" in said
    assert {remark.count for remark in dataset.facts.remarks} == {1, 4}


def test_names_of_any_bytes_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    fill(**{"Ä ö": 8, "b\n'": 8})
    for name in (b"caf\xe9.png", b"caf\xe8.jpg"):
        shutil.copy("images/Ä ö/1.png", os.path.join(b"images/b\n'", name))  # noqa: PTH118
    with open(b"images/b\n'/\xff.png", "wb"):  # noqa: PTH123
        pass
    dataset = run("corrupt=skip")
    assert dataset.classes == ("b\n'", "Ä ö")
    assert sum(dataset.facts.examples.values()) == 18
    assert len(dataset.facts.skipped) == 1
    assert sum(obtain(config("corrupt=skip"), Path.cwd()).facts.examples.values()) == 18


# folders that are not as they should be -----------------------------------------------------------

BAD: dict[str, tuple[Callable[[], object], str]] = {
    "absent": (
        lambda: None,
        "data.root = images: {root} is not there; {root.parent} is; allowed: a folder that holds a sub-folder",
    ),
    "a file": (lambda: Path("images").touch(), "data.root = images: {root} is a file; allowed: a folder"),
    "empty": (lambda: Path("images").mkdir(), "data.root = images: {root} has no class folder; allowed: two or more"),
    "no classes": (
        lambda: put("images/1.png", 0),
        "{root} has no class folder; allowed: two or more",
    ),
    "one class": (lambda: fill(a=8), "{root} has 1 class folder (a); allowed: two or more"),
    "an empty class": (lambda: [fill(a=8, b=8), Path("images/c").mkdir()], "no images in {root}/c"),
    "a class unknown": (
        lambda: [fill("images/train", a=8, b=8), fill("images/test", a=8, z=8)],
        "data.root = images: test has classes that train has not: z",
    ),
    "a part twice": (
        lambda: [fill(f"images/{part}", a=8, b=8) for part in ("train", "val", "valid")],
        "data.root = images: val, valid; allowed",
    ),
    "more beside the parts": (
        lambda: [fill(f"images/{part}", a=8, b=8) for part in ("train", "test", "extra")],
        "data.root = images: extra; allowed beside train: one test, one validation",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_a_folder_that_is_not_as_it_should_be_is_refused(
    capsys: pytest.CaptureFixture[str], make: Callable[[], object], message: str
) -> None:
    make()
    assert message.format(root=Path("images").absolute()) in refusal(capsys, stages=["download"])


@pytest.mark.parametrize("damage", ["changed", "deleted", "unreadable"])
def test_images_that_change_after_the_download_are_refused(capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = fill(a=8, b=8)[3]
    run()
    before = json.loads(Path("data/prepared/dataset.json").read_text(encoding="utf-8"))
    path.unlink()
    if damage == "changed":
        put(path, 100)
    elif damage == "unreadable":
        path.mkdir()
    told = refusal(capsys, "corrupt=skip", stages=["prepare"])
    assert str(path) in told
    assert "run `dvc repro --force download`" in told
    assert json.loads(Path("data/prepared/dataset.json").read_text(encoding="utf-8")) == before


def test_the_images_are_found_from_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(a=8, b=8)
    fingerprint = run().fingerprint
    for root in (tmp_path, tmp_path / ".dvc/tmp/exps/one"):  # what makes a folder this project's
        for name in ("conf/config.yaml", "pipeline/core/paths.py"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    for elsewhere in (".dvc/tmp/exps/one", "deep"):
        (tmp_path / elsewhere).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / elsewhere)
        assert run().fingerprint == fingerprint
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("root='~/images'").fingerprint == fingerprint


def test_obtain_notices_that_an_image_has_changed(tmp_path: Path) -> None:
    path = fill(a=8, b=8)[0]
    run()
    first = obtain(config(), tmp_path)
    assert first.folder.parent == tmp_path / "data/cache"
    made = first.folder.stat().st_mtime_ns
    assert obtain(config(), tmp_path).folder == first.folder
    assert first.folder.stat().st_mtime_ns == made
    put(path, 100)
    second = obtain(config(), tmp_path)
    assert second.fingerprint != first.fingerprint
    assert (CONTENT[100].tobytes(), "a") in held(second, *SPLITS)
    path.unlink()
    assert sum(obtain(config(), tmp_path).facts.examples.values()) == 15
