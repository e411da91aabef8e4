"""The tree of a user's images: which folders are splits and classes, which files are images, and what is left out."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ...core.errors import UserError
from ..remarks import MOST_NAMED, Remark
from .folder_entries import Entries, around_of, is_nested, list_folder
from .folder_links import shared_files
from .folder_names import SPLIT_NAMES, looks_like, printable, shown, some, split_of
from .folder_root import what_it_is

_DEEPEST: Final = 64  # folders below a class: more than a path has room for
_NO_IMAGE: Final = "Left out, as their names do not end as those of images do"
_AGAIN: Final = "Left out, as they are links to folders around them, or to what their class has already"
_BESIDE: Final = "Left out, as they are in no class folder"


@dataclass
class Tree:
    """What was found below `root`."""

    root: Path
    parts: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    """Images by part and class."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """By reason, paths relative to `root`; those of folders end with a slash."""
    notes: list[str] = field(default_factory=list)
    """Sentences on how the folder was read, where that is not obvious."""
    classes: dict[Path, str] = field(default_factory=dict)
    """The class that a folder was read for, by its real path."""
    classes_given: bool = False
    """Whether the configuration names the classes, which confirms that the folders are classes."""

    def leave_out(self, reason: str, path: Path, *, folder: bool = False) -> None:
        """Note a file or folder that is not read."""
        name = shown(str(path.relative_to(self.root))) + ("/" if folder else "")
        self.left_out.setdefault(reason, []).append(name)

    def remarks(self) -> list[Remark]:
        """Return what was left out, with counts and the first names, and the notes."""
        return [
            *(
                Remark(says=reason, count=len(n), first=tuple(sorted(n)[:MOST_NAMED]))
                for reason, n in self.left_out.items()
            ),
            *(Remark(says=note, count=1, first=()) for note in self.notes),
        ]


def survey(root: Path, key: str, *, classes_given: bool = False) -> Tree:
    """Return the tree below `root`. `key`: how a message calls it, such as `data.root = images`.

    `classes_given`: see `Tree`.

    Raises `UserError` naming the folder or class that does not fit the layout, or cannot be read.
    """
    tree = Tree(root, classes_given=classes_given)
    try:
        if not root.is_dir():
            raise UserError(f"{key}: {root} {what_it_is(root)}; allowed: a folder that holds a sub-folder per class")
        base = _unwrapped(root, tree)
        splits = _splits(base, key, tree)
        for role, folder in (splits or {"train": base}).items():
            tree.parts[role] = _by_class(_unwrapped(folder, tree, within_split=True) if splits else folder, key, tree)
        tree.notes += shared_files(root, tree.parts, key)
    except OSError as error:
        raise UserError(f"{key}: {error.filename}: cannot be read: {error.strerror}") from error
    _compare_classes(tree, key, drawn={"test", "validation"} - tree.parts.keys())
    return tree


def _unwrapped(folder: Path, tree: Tree, *, within_split: bool = False) -> Path:
    """Follow folders that hold nothing but one folder, as archives do; note where that ends.

    A folder with images of its own ends it, and at the top one that is named like a split.
    """
    inner = folder
    for _ in range(_DEEPEST):
        entries = list_folder(inner)
        if len(entries.folders) != 1 or entries.images():
            break
        below = list_folder(entries.folders[0])
        is_split = split_of(entries.folders[0].name) and not within_split
        if is_split or below.images() or not below.folders or entries.folders[0].resolve() in around_of(inner):
            break
        _leave_out_beside(inner, entries, tree)
        inner = entries.folders[0]
    if inner != folder:
        tree.notes.append(
            f"The classes or splits are those in {shown(str(inner.relative_to(tree.root)))}, the only folder there is"
        )
    return inner


def _splits(folder: Path, key: str, tree: Tree) -> dict[str, Path] | None:
    """Return the folders of the splits by part; None if the folders are classes.

    Raises `UserError` where they may be either, or are not what is allowed.
    """
    entries = list_folder(folder)
    top = {path: split_of(path.name) for path in entries.folders}
    given = [role for role in top.values() if role]
    if "train" in given and (len(given) > 1 or len(top) == 1):
        if strays := [path.name for path, role in top.items() if given.count(role) != 1]:
            raise UserError(
                f"{key}: {some(strays)}; allowed beside train: one test, one validation, in a folder named "
                + " or ".join(f"{', '.join(names)} ({role})" for role, names in SPLIT_NAMES.items())
            )
        _leave_out_beside(folder, entries, tree)
        return {role: path for path, role in sorted(top.items(), key=lambda item: list(SPLIT_NAMES).index(item[1]))}
    looks = {path: role for path in top if (role := looks_like(path.name))}
    nested = [path for path in looks if is_nested(path)]
    if (len(looks) == len(top) and len(looks) > 1) or len({looks[path] for path in nested}) > 1:
        suspects = list(looks)
    else:
        suspects = [path for path in nested if top[path]]
    if suspects:
        like = "look like splits, not classes" if len(suspects) > 1 else "looks like a split, not a class"
        raise UserError(
            f"{key}: {folder} holds {some([path.name for path in suspects])}, which {like}; "
            "allowed: train and, beside it, test and validation, which hold the class folders. Rename them, and move "
            "other folders away; if they are classes, put their images directly into them, or rename them"
        )
    return None


def _by_class(folder: Path, key: str, tree: Tree) -> dict[str, list[Path]]:
    """Return the images by class."""
    entries = list_folder(folder)
    _leave_out_beside(folder, entries, tree)
    images: dict[str, list[Path]] = {}
    homes: dict[str, Path] = {}
    for home in entries.folders:
        name = unicodedata.normalize("NFC", printable(home.name))
        if name in images:
            raise UserError(
                f"{key}: {folder} holds two folders that are both shown as {name}: {homes[name].name!a} and "
                f"{home.name!a}; allowed: one per class, so rename or merge them"
            )
        images[name], homes[name] = _walk(home, key, tree), home
    if len(images) < 2:
        raise UserError(
            f"{key}: {folder} has {len(images) or 'no'} class folder{_which(images)}; allowed: two or more, one "
            f"per class, as in {folder}/cat/1.png{_or_below(list(homes.values()))}{_instead(tree)}"
        )
    if empty := [str(homes[name]) for name, paths in images.items() if not paths]:
        raise UserError(
            f"{key}: no images in {some(empty)}; allowed: one or more in each class folder; remove those that are no "
            f"classes{_instead(tree)}"
        )
    _note_alike(images, folder, tree)
    _refuse_nested(list(homes.values()), key, tree)
    return images


def _or_below(homes: Sequence[Path]) -> str:
    """Return a hint where the only folder may be the one that holds the classes."""
    only = len(homes) == 1 and is_nested(homes[0]) and not split_of(homes[0].name)
    return f"; or data.root={shown(str(homes[0]))}, if that holds the class folders" if only else ""


def _which(images: Mapping[str, object]) -> str:
    return f" ({some(list(images))})" if images else ""


def _instead(tree: Tree) -> str:
    left = [name for names in tree.left_out.values() for name in names]
    return f" (left out: {some(left)})" if left else ""


def _walk(home: Path, key: str, tree: Tree) -> list[Path]:
    """Return the images of a class, in all of its folders; note what else is there. Reads a folder once, so links end.

    Raises `UserError` if folders in it look like splits.
    """
    images: list[Path] = []
    seen = around_of(home.parent)
    waiting, links = [home], list[Path]()  # links last: where a folder is reached twice, they are left out
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop()
        if (real := folder.resolve()) in seen:
            tree.leave_out(_AGAIN, folder, folder=True)
            continue
        seen.add(real)
        if (other := tree.classes.setdefault(real, home.name)) != home.name:
            tree.notes.append(
                f"{shown(folder.name)} is read as {shown(other)} and, through a link, as {shown(home.name)}"
            )
        entries = list_folder(folder)
        _refuse_inner_splits(folder, entries, key)
        for reason, path in entries.others:
            tree.leave_out(reason, path, folder=path.is_dir())
        found = entries.images()
        images += found
        for path in sorted(set(entries.files) - set(found)):
            tree.leave_out(_NO_IMAGE, path)
        for path in entries.folders:
            (links if path.is_symlink() else waiting).append(path)
    return sorted(images)


def _refuse_inner_splits(folder: Path, entries: Entries, key: str) -> None:
    roles = {path.name: split_of(path.name) for path in entries.folders}
    suspects = [name for name, role in roles.items() if role]
    if "train" in roles.values() and len(suspects) > 1:
        raise UserError(
            f"{key}: {folder} holds {some(suspects)}, which look like splits within a class; allowed: the other way "
            "round, as in train/cat/1.png and test/cat/2.png"
        )


def _leave_out_beside(folder: Path, entries: Entries, tree: Tree) -> None:
    """Note what a folder of class folders holds beside them."""
    for reason, path in [*entries.others, *((_BESIDE, path) for path in entries.files)]:
        tree.leave_out(reason, path, folder=path.is_dir())


def _note_alike(classes: Mapping[str, object], folder: Path, tree: Tree) -> None:
    """Note classes whose names differ in case or blanks alone."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            tree.notes.append(f"Classes whose names are alike: {', '.join(map(repr, names))} in {shown(folder.name)}")


def _refuse_nested(homes: Sequence[Path], key: str, tree: Tree) -> None:
    """Raise `UserError` if two classes hold folders of the same names, two or more of them, as splits do.

    Splits in a language or of a kind that `SPLIT_NAMES` lacks would be learnt as classes. Noted if classes are given.
    """
    inner = {home: {path.name.casefold() for path in list_folder(home).folders} for home in homes if is_nested(home)}
    alike = [one for one in inner if any(len(inner[one] & inner[other]) > 1 for other in inner if other != one)]
    if not alike:
        return
    names, parts = [home.name for home in alike], sorted(set[str].intersection(*(inner[home] for home in alike)))
    shared = some(parts) if len(parts) > 1 else some(sorted(inner[alike[0]]))
    if tree.classes_given:
        tree.notes.append(f"The classes are {some(names)}; each of them holds {shared}, which are read as parts of it")
        return
    every = ",".join(shown(home.name) for home in homes)
    raise UserError(
        f"{key}: {some(names)} in {alike[0].parent} each hold the same folders, {shared}: these may be the classes, "
        f"and those splits; allowed: if those are, rename them to train/, test/ and validation/; if {some(names)} "
        f"are classes, name all: data.classes=[{every}]"
    )


def _compare_classes(tree: Tree, key: str, drawn: set[str]) -> None:
    """Raise `UserError` if a part has other classes than `train`, or a class too few images for the drawn splits."""
    train = tree.parts["train"]
    for part, by_class in tree.parts.items():
        if unknown := sorted(set(by_class) - set(train)):
            raise UserError(f"{key}: {part} has classes that train has not: {some(unknown)}; allowed: the same in each")
        if absent := sorted(set(train) - set(by_class)):
            raise UserError(f"{key}: {part} lacks classes that train has: {some(absent)}; allowed: the same in each")
    least = 1 + len(drawn)
    if few := [f"{name} ({len(paths)})" for name, paths in train.items() if len(paths) < least]:
        others = " and ".join(f"one for {split}" for split in sorted(drawn))
        raise UserError(
            f"{key}: classes with too few images: {some(few)}; allowed: {least} or more, one to train on and {others}"
        )
