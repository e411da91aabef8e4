"""What one folder of a user's images holds: folders, files, and what is left out."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image

_HIDDEN: Final = "Left out, as they are hidden"
_BROKEN: Final = "Left out, as they are links to nothing that can be read"
_SPECIAL: Final = "Left out, as they are neither files nor folders"


@dataclass(frozen=True)
class Entries:
    """What one folder holds: paths, sorted by name."""

    folders: list[Path]
    files: list[Path]
    others: list[tuple[str, Path]]
    """With the reason why they are left out."""

    def images(self) -> list[Path]:
        """Return the files whose names end as those of images do."""
        return [path for path in self.files if path.suffix.lower() in suffixes()]


def list_folder(folder: Path) -> Entries:
    """List a folder, following links. Raises OSError if it cannot be read."""
    found = Entries([], [], [])
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":  # of archives that macOS makes
                found.others.append((_HIDDEN, path))
            elif _is(entry.is_dir, entry):
                found.folders.append(path)
            elif _is(entry.is_file, entry):
                found.files.append(path)
            else:
                found.others.append((_BROKEN if entry.is_symlink() and not path.exists() else _SPECIAL, path))
    return found


def _is(test: Callable[[], bool], entry: os.DirEntry[str]) -> bool:
    """Return what a test says; False for a link that goes round or may not be followed."""
    try:
        return test()
    except OSError:
        if not entry.is_symlink():
            raise
        return False


def is_nested(folder: Path) -> bool:
    """Return whether a folder holds two folders or more, and its images in these, as a split does.

    Images of its own are strays if they are no more than a sub-folder holds on average.
    """
    entries = list_folder(folder)
    if len(entries.folders) < 2:
        return False
    own = len(entries.images())
    return not own or own * len(entries.folders) <= sum(_count(path, around_of(folder)) for path in entries.folders)


def _count(folder: Path, around: set[Path]) -> int:
    """Return how many images there are below a folder."""
    if (real := folder.resolve()) in around:
        return 0
    entries = list_folder(folder)
    return len(entries.images()) + sum(_count(path, around | {real}) for path in entries.folders)


def around_of(folder: Path) -> set[Path]:
    """Return the real paths of a folder and of those around it."""
    real = folder.resolve()
    return {real, *real.parents}


@cache
def suffixes() -> frozenset[str]:
    """Return the endings of names of images, such as `.png`."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)
