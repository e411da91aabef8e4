"""How a folder of images is read: classes and their order, splits, links, names, and what is left out by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from own_images import CONTENT, fill, held, put, refusal, run

from pipeline.data.dataset import SPLITS, Dataset
from pipeline.reports.data_page import notes


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)


def total(dataset: Dataset) -> int:
    return sum(dataset.facts.examples.values())


def said(dataset: Dataset) -> str:
    """What the page about the data says."""
    return "\n".join(notes(dataset.facts))


# classes ------------------------------------------------------------------------------------------


def test_given_classes_order_the_labels_and_never_rename() -> None:
    fill(a=8, b=12)
    plain = run()
    assert plain.classes == ("a", "b")
    before = held(plain, *SPLITS)
    turned = run("classes=[b,a]")
    assert turned.classes == ("b", "a")
    assert held(turned, *SPLITS) == before
    assert [sum(column) for column in zip(*turned.facts.class_counts.values(), strict=True)] == [12, 8]


@pytest.mark.parametrize(
    ("classes", "message"),
    {
        "[a,c]": "there is no folder c and the folder b is not in it; allowed: the names of all class folders (a, b)",
        "[a,b,c]": "there is no folder c; allowed: the names of all class folders (a, b)",
        "[cat,dog]": "there is no folder cat, dog and the folder a, b is not in it",
    }.items(),
)
def test_classes_that_are_no_folders_are_refused(
    capsys: pytest.CaptureFixture[str], classes: str, message: str
) -> None:
    fill(a=8, b=8)
    told = refusal(capsys, f"classes={classes}", stages=["download"])
    assert "data.classes = [" in told
    assert message in told


def test_a_part_of_the_classes_is_refused_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8, c=8)
    told = refusal(capsys, "classes=[a,c]", stages=["download"])
    assert "the folder b is not in it" in told
    assert "or to leave it out, rename or move its folder" in told


ODD_NAMES = (
    "__background__",
    "_",
    "-",
    "--x",
    "1",
    "10",
    " ",
    "a b",
    "Ä",
    "猫",
    "a$b",
    "a,b",
    "[x]",
    "null",
)


def test_no_name_of_a_class_makes_it_vanish() -> None:
    fill(**dict.fromkeys(ODD_NAMES, 3))
    dataset = run()
    assert dataset.classes == tuple(sorted(ODD_NAMES))
    assert total(dataset) == 3 * len(ODD_NAMES)


def test_hidden_classes_are_named() -> None:
    fill(**{"a": 3, "b": 3, ".c": 3, "__MACOSX": 3})
    dataset = run()
    assert dataset.classes == ("a", "b")
    assert "Left out, as they are hidden (2): .c/, __MACOSX/." in said(dataset)


def test_names_that_differ_in_case_alone_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    fill(Cat=3, cat=3, dog=3)
    dataset = run()
    assert dataset.classes == ("Cat", "cat", "dog")
    assert "Classes whose names are alike: 'Cat', 'cat'" in capsys.readouterr().out
    assert "Classes whose names are alike: 'Cat', 'cat'" in said(dataset)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_names_are_compared_as_they_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fill("images/train", **{COMPOSED: 8, "b": 8})
    fill("images/test", start=20, **{DECOMPOSED: 8, "b": 8})
    assert run(f"classes=[{DECOMPOSED},b]").classes == (COMPOSED, "b")
    fill("images/train", start=50, **{DECOMPOSED: 8})
    assert "two folders that are both shown as café: 'cafe\\u0301' and 'caf\\xe9'" in refusal(capsys)


# what is not read ---------------------------------------------------------------------------------


def test_linked_folders_and_files_are_read() -> None:
    fill(a=4, b=4)
    fill("elsewhere", start=20, more=4)
    Path("images/a/linked").symlink_to(Path("elsewhere/more").absolute())
    Path("images/b/one.png").symlink_to(Path("elsewhere/more/0.png").absolute())
    Path("images/c").symlink_to(Path("elsewhere/more").absolute())
    dataset = run()
    assert dataset.classes == ("a", "b", "c")
    assert total(dataset) == 8 + 5 + 4
    assert [remark.says for remark in dataset.facts.remarks] == ["c is read as a and, through a link, as c"]


def test_what_is_not_read_is_named_on_the_terminal_and_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=4, b=4)
    Path("images/a/deep/er").mkdir(parents=True)
    Path("images/a/gone.png").symlink_to("nowhere.png")
    Path("images/a/deep/er/gone").symlink_to("nowhere")
    Path("images/b/no suffix").touch()
    Path("images/b/line\nbreak.txt").touch()
    Path("images/beside.png").touch()
    Path("images/lost").symlink_to("nowhere")
    os.mkfifo("images/b/pipe.png")
    wanted = (
        "Left out, as they are links to nothing that can be read (3): a/deep/er/gone, a/gone.png, lost",
        "Left out, as their names do not end as those of images do (2): b/line\\nbreak.txt, b/no suffix",
        "Left out, as they are neither files nor folders (1): b/pipe.png",
        "Left out, as they are in no class folder (1): beside.png",
    )
    dataset = run()
    terminal = capsys.readouterr().out
    assert total(dataset) == 8
    assert all(line in terminal and line in said(dataset) for line in wanted)


def test_links_that_go_round_end_and_are_named() -> None:
    fill(a=4, b=4)
    fill("images/a", start=20, deep=2)
    for name, target in {"a/up": "..", "a/self": ".", "a/deep/root": "../..", "b/x": "y", "b/y": "x"}.items():
        Path("images", name).symlink_to(target)
    Path("images/b/one").mkdir()
    Path("images/b/one/two").symlink_to("../two")
    Path("images/b/two").mkdir()
    Path("images/b/two/one").symlink_to("../one")
    dataset = run()
    assert total(dataset) == 10
    assert "Left out, as they are links to folders around them, or to what their class has already (5)" in said(dataset)
    assert "Left out, as they are links to nothing that can be read (2): b/x, b/y" in said(dataset)


def test_a_folder_that_links_put_into_two_classes_is_noted() -> None:
    fill(a=4, b=4, c=4)
    Path("images/b/more").symlink_to("../c")
    dataset = run()
    assert total(dataset) == 16
    assert "c is read as b and, through a link, as c" in said(dataset)


def test_a_folder_that_holds_itself_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("images").mkdir()
    Path("images/again").symlink_to(".")
    assert "allowed: two or more, one per class" in refusal(capsys, stages=["download"])


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to be refused as")
def test_a_folder_that_may_not_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=4, b=4)
    Path("images/a/closed").mkdir(mode=0)
    child = os.fork()
    if not child:
        os._exit(_as_nobody())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    capsys.readouterr()


def _as_nobody() -> int:
    from pipeline.core.errors import UserError
    from pipeline.data.providers.folder_tree import survey

    for folder in (Path.cwd(), *Path.cwd().parents[:-2]):
        folder.chmod(0o755)
    os.setuid(65534)
    try:
        survey(Path("images").absolute(), "data.root = images")
    except UserError as error:
        return 0 if "a/closed: cannot be read: Permission denied" in str(error) else 2
    return 1


# splits -------------------------------------------------------------------------------------------

SPLIT_NAMES = {
    "Training": "train", "TRAIN": "train", "Testing": "test", "eval": "test", "Evaluation": "test", "holdout": "test",
    "Hold-Out": "test", "dev": "validation", "Development": "validation", "VALID": "validation", "val": "validation",
}  # fmt: skip


@pytest.mark.parametrize(("name", "split"), SPLIT_NAMES.items())
@pytest.mark.parametrize("above", ["", "archive/", "archive/deep/"])
def test_splits_under_usual_names_are_splits(name: str, split: str, above: str) -> None:
    train = name if split == "train" else "train"
    fill(f"images/{above}{train}", a=8, b=8)
    other = "test" if split == "train" else name
    fill(f"images/{above}{other}", start=50, a=4, b=4)
    dataset = run()
    assert dataset.classes == ("a", "b")
    wanted = {(CONTENT[50 + number].tobytes(), "ab"[number // 4]) for number in range(8)}
    assert set(held(dataset, "test" if split == "train" else split)) == wanted  # type: ignore[arg-type]
    assert ("the only folder there is" in said(dataset)) == bool(above)


def test_folders_that_hold_one_folder_are_looked_through(capsys: pytest.CaptureFixture[str]) -> None:
    fill("images/archive/images", a=8, b=8)
    dataset = run()
    assert dataset.classes == ("a", "b")
    assert "The classes or splits are those in archive/images, the only folder there is" in capsys.readouterr().out
    shutil.rmtree("images")
    fill("images/train/train", a=8, b=8)
    fill("images/test/test", start=50, a=8, b=8)
    assert run().facts.examples["test"] == 16


LIKE_SPLITS: dict[str, tuple[Callable[[], object], str]] = {
    "other names": (lambda: [fill(f"images/{p}", a=4, b=4) for p in ("seg_train", "seg_test")], "seg_test, seg_train"),
    "camel case": (lambda: [fill(f"images/{p}", a=4, b=4) for p in ("TrainSet", "valData")], "TrainSet, valData"),
    "numbered": (lambda: [fill(f"images/{p}", a=4, b=4) for p in ("train2017", "val2017")], "train2017, val2017"),
    "nothing to train on": (lambda: [fill(f"images/{p}", a=4, b=4) for p in ("Testing", "val")], "Testing, val"),
    "one split": (lambda: fill("images/test", a=4, b=4), "test"),
    "beside another": (lambda: [fill(f"images/{p}", a=4, b=4) for p in ("Training", "unlabelled")], "Training"),
    "not in classes": (lambda: fill("images", train_images=4, test_images=4), "test_images, train_images"),
}


@pytest.mark.parametrize(("make", "named"), LIKE_SPLITS.values(), ids=LIKE_SPLITS)
def test_what_looks_like_splits_is_refused_with_the_way_out(
    capsys: pytest.CaptureFixture[str], make: Callable[[], object], named: str
) -> None:
    make()
    told = refusal(capsys, stages=["download"])
    like = "look like splits, not classes" if "," in named else "looks like a split, not a class"
    assert f"images holds {named}, which {like}" in told
    assert "Rename them" in told


def test_splits_within_classes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("cat", "dog"):
        fill(f"images/{kind}", train=4, test=4)
    told = refusal(capsys, stages=["download"])
    assert "images/cat holds test, train, which look like splits within a class" in told


@pytest.mark.parametrize("names", [("te", "tr"), ("fold1", "fold2"), ("Apprentissage", "Validierung")])
def test_classes_that_hold_the_same_folders_must_be_named(
    capsys: pytest.CaptureFixture[str], names: tuple[str, str]
) -> None:
    for name in names:
        fill(f"images/{name}", cat=4, dog=4)
    both = ", ".join(names)
    told = refusal(capsys, stages=["download"])
    assert f"{both} in {Path('images').absolute()} each hold the same folders, cat, dog" in told
    assert "rename them to train/, test/" in told
    assert f"data.classes=[{','.join(names)}]" in told
    confirmed = run(f"classes=[{','.join(names)}]")
    assert confirmed.classes == names
    assert f"The classes are {both}; each of them holds cat, dog" in said(confirmed)


def test_classes_that_hold_other_folders_are_read_with_their_parts() -> None:
    fill("images/bird", owl=4, tit=4)
    fill("images/mammal", cat=4, dog=4)
    assert run().classes == ("bird", "mammal")


@pytest.mark.parametrize(("link", "target"), [("test", "train"), ("test/a", "train/a"), ("test/a", "train/a/inner")])
def test_a_split_that_is_linked_to_another_is_refused(
    capsys: pytest.CaptureFixture[str], link: str, target: str
) -> None:
    fill("images/train", a=8, b=8)
    put("images/train/a/inner/9.png", 40)
    if link == "test/a":
        fill("images/test", start=50, b=8)
    Path("images", link).symlink_to(Path("images", target).absolute())
    told = refusal(capsys, stages=["download"])
    assert "all images of a in test are, through links, those of another split: test/a/" in told


def test_a_training_class_that_is_part_of_a_test_class_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fill("images/train", b=8)
    fill("images/test", start=50, a=8, b=8)
    fill("images/test/a", start=80, inner=8)
    Path("images/train/a").symlink_to(Path("images/test/a/inner").absolute())
    told = refusal(capsys, stages=["download"])
    assert "all images of a in train are, through links, those of another split" in told


@pytest.mark.parametrize("hard", [True, False])
def test_a_file_that_is_linked_into_another_split_is_named(capsys: pytest.CaptureFixture[str], hard: bool) -> None:
    fill("images/train", a=8, b=8)
    fill("images/test", start=50, a=8, b=8)
    link, target = Path("images/test/a/x.png"), Path("images/train/a/3.png").absolute()
    link.hardlink_to(target) if hard else link.symlink_to(target)
    line = (
        "Images of test that are, through links, in another split too (1), so that results are too good: test/a/x.png"
    )
    assert line in said(run())
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("names", [("valid", "invalid"), ("test_tube", "train_station", "bus"), ("dev", "ops")])
def test_classes_may_have_words_of_splits_in_their_names(names: tuple[str, ...]) -> None:
    fill(**dict.fromkeys(names, 4))
    assert run().classes == tuple(sorted(names))


# small classes ------------------------------------------------------------------------------------


def test_the_smallest_class_that_is_taken_is_in_every_split() -> None:
    fill(a=40, b=3, c=4)
    for fractions in (("test_fraction=0.05", "validation_fraction=0.05"), ("test_fraction=0.9",)):
        counts = run(*fractions).facts.class_counts
        assert all(count >= 1 for split in SPLITS for count in counts[split])


@pytest.mark.parametrize(
    ("parts", "counts", "least"),
    [((), (2, 1), 3), (("test",), (1, 1), 2), (("val",), (1, 1), 2)],
    ids=["both drawn", "test given", "validation given"],
)
def test_a_class_too_small_to_be_divided_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], parts: tuple[str, ...], counts: tuple[int, int], least: int
) -> None:
    root = "images/train" if parts else "images"
    fill(root, a=8, b=counts[0], c=counts[1])
    for part in parts:
        fill(f"images/{part}", start=50, a=4, b=4, c=4)
    told = refusal(capsys, stages=["download"])
    assert f"classes with too few images: b ({counts[0]}), c ({counts[1]}); allowed: {least} or more" in told


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_class_missing_in_a_given_split_is_refused_by_name(capsys: pytest.CaptureFixture[str], part: str) -> None:
    fill("images/train", a=8, b=8, c=8)
    fill(f"images/{part}", a=8, b=8)
    assert f"{part} lacks classes that train has: c" in refusal(capsys, stages=["download"])


def test_a_class_that_a_limit_leaves_out_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=150, b=3)
    dataset = run("max_train=20", "max_test=10")
    counts = dataset.facts.class_counts
    terminal = capsys.readouterr().out
    lacking = [split for split in SPLITS if not counts[split][1]]
    assert lacking
    for split in lacking:
        assert f"Without a {split} image: b." in terminal
        assert f"Without a {split} image: b." in said(dataset)


def test_the_inventory_keeps_what_was_left_out() -> None:
    fill(a=4, b=4)
    Path("images/a/notes.txt").touch()
    run()
    inventory = json.loads(Path("data/raw/images.json").read_text(encoding="utf-8"))
    assert inventory["remarks"][0]["first"] == ["a/notes.txt"]
    put("images/a/9.png", 9)
    assert total(run()) == 9
