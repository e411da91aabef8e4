"""`data.root` that is no folder of classes: the message says what it is, and the way out."""

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_images import fill, put, refusal, run
from PIL import Image

from pipeline.config.quoting import quoted
from pipeline.core.errors import UserError
from pipeline.data.providers.folder_root import root_of
from pipeline.data.providers.folder_tree import survey


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def _zip() -> None:
    zipfile.ZipFile("it", "w").close()


def _tar() -> None:
    Path("x").touch()
    with tarfile.open("it", "w:gz") as file:
        file.add("x")


KINDS: dict[str, tuple[Callable[[], object], str, str]] = {
    "a zip": (_zip, "it", "is an archive: unpack it"),
    "a tar": (_tar, "it", "is an archive: unpack it"),
    "in a zip": (_zip, "it/inside", "is not there, as {here}/it is an archive: unpack it"),
    "an image": (lambda: put("it.png", 0), "it.png", "is a single image: name the folder around"),
    "a list": (lambda: Path("it.csv").touch(), "it.csv", "is a file of data or a list"),
    "another file": (lambda: Path("it").touch(), "it", "is a file; allowed: a folder"),
    "a pipe": (lambda: os.mkfifo("it"), "it", "is neither a file nor a folder"),
    "a link to nothing": (lambda: Path("it").symlink_to("no"), "it", "is a link to no, which is not there"),
    "nothing": (lambda: None, "no/it", "{here}/no/it is not there; {here} is"),
    "below home": (lambda: Path("home").mkdir(), "~/it", "{here}/home/it is not there; {here}/home is"),
    "home": (lambda: Path("home").mkdir(), "~", "{here}/home has no class folder"),
    "no such home": (lambda: None, "~no-such-user/it", "home directory"),
    "a file URL": (lambda: None, "file:///data/it", "is a URL, .*allowed: data.root=/data/it"),
    "a URL": (lambda: None, "https://example.org/it.zip", "is a URL, .*allowed: its folder on this machine"),
    "a bucket": (lambda: None, "s3://it/x", "is a URL, .*allowed: its folder on this machine"),
    "a variable": (lambda: None, "$HOME/it", "\\$HOME is a variable of the shell: .*single quotes"),
    "no variable": (lambda: None, "$NO_SUCH/it", "\\$NO_SUCH is a variable of the shell: it is not set"),
    "blanks": (lambda: None, " ", "data.root = ' ': is no path"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_folder_is_told_with_the_way_out(kind: str) -> None:
    make, root, message = KINDS[kind]
    make()
    with pytest.raises(UserError, match=message.replace("{here}", str(Path.cwd()))) as told:
        survey(root_of(root), f"data.root = {root}")
    assert str(told.value).startswith(f"data.root = {root if root.strip() else repr(root)}: ")
    assert "\n" not in str(told.value)


def test_the_stage_ends_with_that_message(capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, f"root={quoted('file:///it')}", stages=["download"])
    assert told.startswith("error: data.root = file:///it: is a URL")


def test_the_only_folder_beside_an_image_is_named_as_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    fill("images/archive", a=4, b=4)
    put("images/cover.png", 99)
    told = refusal(capsys, stages=["download"])
    assert f"; or data.root={Path('images/archive').absolute()}, if that holds the class folders" in told
    assert "left out: cover.png" in told


# strays ---------------------------------------------------------------------------------------------

STRAYS: dict[str, list[str]] = {
    "none": [],
    "at the top": ["images/x.png"],
    "in one": ["images/tr/x.png"],
    "in each": ["images/tr/x.png", "images/te/x.png"],
    "a class of another kind": ["images/bird/x.png", "images/bird/y.png", "images/bird/z.png"],
    "a further folder in one": ["images/tr/bird/x.png"],
}


@pytest.mark.parametrize("strays", STRAYS.values(), ids=STRAYS)
def test_strays_do_not_make_classes_of_what_look_like_splits(
    capsys: pytest.CaptureFixture[str], strays: list[str]
) -> None:
    fill("images/tr", cat=4, dog=4)
    fill("images/te", start=20, cat=4, dog=4)
    for number, path in enumerate(strays):
        put(path, 60 + number)
    told = refusal(capsys, stages=["download"])
    assert "te, tr in" in told
    assert "each hold the same folders, cat, dog" in told
    names = "bird,te,tr" if any("images/bird" in path for path in strays) else "te,tr"
    assert f"data.classes=[{names}]" in told


def test_a_stray_does_not_make_a_class_of_what_is_named_like_a_split(capsys: pytest.CaptureFixture[str]) -> None:
    fill("images/Training", a=4, b=4)
    fill("images/unlabelled", start=20, x=4, y=4)
    put("images/Training/x.png", 60)
    assert "images holds Training, which looks like a split, not a class" in refusal(capsys, stages=["download"])


def test_classes_with_many_images_of_their_own_may_hold_the_same_folders() -> None:
    for start, name in ((0, "cat"), (40, "dog")):
        fill("images", start=start, **{name: 9})
        fill(f"images/{name}", start=start + 20, front=4, back=4)
    assert run().classes == ("cat", "dog")


# few greys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("greys", "bright", "good"), [(40, False, True), (40, True, False), (2, True, True)])
def test_small_images_of_few_greys_keep_most_of_them_or_are_refused(
    capsys: pytest.CaptureFixture[str], greys: int, bright: bool, good: bool
) -> None:
    """16 pixels each, of few values in 16 bits: one bright pixel merges them, unless they are far apart."""
    step = 1000 if greys == 2 else 1
    for number in range(16):
        values = (np.random.default_rng(number).integers(0, greys, (4, 4)) * step).astype(np.uint16)
        if bright and not number:
            values[0, 0] = 65535
        put(f"images/{'ab'[number % 2]}/{number}.png", Image.fromarray(values))
    if good:
        assert run().classes == ("a", "b")
    else:
        assert "fewer than 64 of 256, though they hold more values" in refusal(capsys)
