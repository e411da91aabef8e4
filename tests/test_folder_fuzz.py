"""Random trees of images: never a traceback, and nothing missing that is not named.

`FOLDERS=2000 pytest tests/test_folder_fuzz.py`: that many.
"""

import os
import re
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from own_images import run
from PIL import Image

from pipeline.data.dataset import Dataset
from pipeline.data.providers.folder_names import printable

CLASSES = st.sampled_from(
    ["a", "b", "c", "__background__", "_", "-x", "1", "Cat", "cat", "caf\u00e9", "cafe\u0301", "猫", " ", "a b",
     "train", "test", "val", "Training", "eval", "train_set", "seg_test", ".hidden", "__MACOSX",
     "x\ny", "\udcff", "a,b", "[x]"]
)  # fmt: skip
ABOVE = st.sampled_from(
    ["", "", "", "archive/", "train", "train", "Training", "test", "dev", "valid", "seg_train", "fold1"]
)
BELOW = st.sampled_from(["", "", "", "", "deep/", "deep/er/", ".cache/", "train/", "test/"])
FILES = st.sampled_from(
    ["8", "8", "8", "8", "colour", "alpha", "palette", "1", "12", "16", "tiff12", "float", "frames", "turned", "empty",
     "cut", "text", "hidden", "broken link", "linked file", "fifo", "folder.png", "loop", "linked folder", "none"]
)  # fmt: skip
WILD = st.lists(st.tuples(ABOVE, CLASSES, BELOW, FILES, st.integers(1, 5)), min_size=1, max_size=14)
LAYOUTS = st.sampled_from([("",), ("",), ("archive/",), ("train/", "test/"), ("a/Training/", "a/dev/", "a/eval/")])
READABLE = st.sampled_from(["8", "colour", "alpha", "palette", "1", "12", "16", "tiff12", "frames", "linked file"])


@st.composite
def tame(draw: st.DrawFn) -> list[tuple[str, str, str, str, int]]:
    """A folder as it should be, with odd things in it."""
    parts = draw(LAYOUTS)
    classes = draw(st.lists(CLASSES, min_size=2, max_size=4, unique=True))
    good = [(part, kind, "", draw(READABLE), draw(st.integers(2, 5))) for part in parts for kind in classes]
    odd = st.tuples(st.sampled_from(parts), st.sampled_from(classes), BELOW, FILES, st.integers(1, 3))
    return good + draw(st.lists(odd, max_size=4))


TREES = st.one_of(tame(), tame(), WILD)
GREY = np.arange(30, dtype=np.uint8).reshape(5, 6)


class Made:
    """What was made: names of images that should be read, by content, and of everything else."""

    def __init__(self, root: Path) -> None:
        self.root, self.number = root, 0
        self.images: list[Path] = []
        self.others: list[Path] = []

    def image(self, path: Path, image: Image.Image, **how: object) -> None:
        image.save(path, **how)
        self.images.append(path)

    def add(self, folder: Path, kind: str) -> None:
        """Make a file of this kind in a folder, under a name of its own."""
        self.number += 1
        name = folder / f"{self.number}.png"
        grey = GREY + np.uint8(self.number)
        if kind == "colour":
            self.image(name, Image.fromarray(np.dstack([grey, grey, 255 - grey])))
        elif kind == "alpha":
            self.image(name, Image.merge("LA", [Image.fromarray(grey)] * 2))
        elif kind == "palette":
            self.image(name, Image.fromarray(grey).convert("P"), transparency=3)
        elif kind == "1":
            self.image(name, Image.fromarray(grey > 20))
        elif kind in ("12", "16", "tiff12"):
            deep = Image.fromarray(grey.astype(np.uint16) << (8 if kind == "16" else 4))
            self.image(name.with_suffix(".tiff" if kind == "tiff12" else ".png"), deep)
        elif kind == "float":
            self.image(name.with_suffix(".tiff"), Image.fromarray(grey.astype(np.float32)))
        elif kind == "frames":
            self.image(
                name.with_suffix(".gif"),
                Image.fromarray(grey),
                save_all=True,
                append_images=[Image.fromarray(grey[::-1])],
            )
        elif kind == "turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            self.image(name, Image.fromarray(grey), exif=exif)
        elif kind in ("empty", "cut"):
            self.image(name, Image.fromarray(grey))
            name.write_bytes(name.read_bytes()[: 0 if kind == "empty" else 60])
        elif kind == "8":
            self.image(name, Image.fromarray(grey))
        else:
            self._odd(folder, name, kind)

    def _odd(self, folder: Path, name: Path, kind: str) -> None:
        outside = self.root.parent / "outside"
        outside.mkdir(exist_ok=True)
        if kind == "linked file":
            Image.fromarray(GREY + np.uint8(self.number)).save(outside / name.name)
            name.symlink_to(outside / name.name)
            self.images.append(name)
        elif kind == "linked folder":
            (inner := outside / str(self.number)).mkdir()
            Image.fromarray(GREY + np.uint8(self.number)).save(inner / name.name)
            (folder / f"{self.number}").symlink_to(inner)
            self.images.append(folder / f"{self.number}" / name.name)
        elif kind == "folder.png":
            name.mkdir()
        elif kind != "none":
            other = {"text": folder / f"{self.number}.txt", "hidden": folder / f".{self.number}.png"}.get(kind, name)
            if kind == "fifo":
                os.mkfifo(other)
            elif kind in ("broken link", "loop"):
                other = other.with_suffix("")
                other.symlink_to("nowhere" if kind == "broken link" else ".")
            else:
                other.touch()
            self.others.append(other)


def is_named(path: Path, root: Path, named: set[str]) -> bool:
    """Whether a path, or a folder around it, is among the names."""
    inner = path.relative_to(root)
    shown = ["".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(p))
             for p in (inner, *inner.parents)]  # fmt: skip
    return any(text.replace("\\udcff", "\\\\udcff") in named or text in named for text in shown)


def check(dataset: Dataset, made: Made, said: str) -> None:
    """Every image and class is in the data or named; of what Pillow sees in part, the terminal speaks."""
    facts = dataset.facts
    left_out = [remark for remark in facts.remarks if remark.says.startswith("Left out")]
    named = {name.rstrip("/") for remark in left_out for name in remark.first}
    named |= {name.encode("unicode_escape").decode() for name in facts.skipped} | set(facts.skipped)
    read = [path for path in made.images if not is_named(path, made.root, named)]
    if all(remark.count == len(remark.first) for remark in left_out):
        missing = [path for path in made.others if not is_named(path, made.root, named)]
        assert not missing, (missing, named)
        assert sum(facts.examples.values()) == len(read), (read, named)
        for path in read:
            homes = {unicodedata.normalize("NFC", printable(part)) for part in path.relative_to(made.root).parts[:-1]}
            assert homes & set(facts.classes), path
    assert all(remark.says in said for remark in facts.remarks)
    for split, counts in facts.class_counts.items():
        for name, count in zip(facts.classes, counts, strict=True):
            assert count or f"Without a {split} image" in said, (split, name)


def test_random_folders_are_read_whole_or_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    ends: Counter[str] = Counter()

    @settings(
        max_examples=int(os.environ.get("FOLDERS", "60")),
        deadline=None,
        derandomize="FOLDERS" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        database=None,
        phases=[Phase.generate],  # to make a failing tree smaller takes minutes
    )
    @given(TREES, st.booleans())
    def try_one(tree: list[tuple[str, str, str, str, int]], skip: bool) -> None:
        with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
            patch.chdir(folder)
            made = Made(Path.cwd() / "images")
            for above, kind, below, file, times in tree:
                home = made.root / above / kind / below
                home.mkdir(parents=True, exist_ok=True)
                for _ in range(times):
                    made.add(home, file)
            capsys.readouterr()
            try:
                dataset = run("size=6", *(["corrupt=skip"] if skip else []))
            except SystemExit as end:
                told, code = capsys.readouterr().err, end.code
                assert code == 2, told
                assert re.match(r"error: (data\.|images that cannot be decoded|Images)", told), told
                ends["refused"] += 1
            else:
                check(dataset, made, capsys.readouterr().out)
                ends["read"] += 1

    try_one()
    print(dict(ends))
    assert ends["read"] > 5
    assert ends["refused"] > 5
