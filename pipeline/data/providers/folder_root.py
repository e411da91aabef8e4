"""The place of a user's images: `data.root` as a path, and what it is where it is no folder."""

import os
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Final

from ...core.errors import UserError
from ...core.paths import main_root
from .folder_entries import suffixes

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_LIST: Final = frozenset(
    (".csv", ".h5", ".hdf5", ".json", ".mat", ".npy", ".npz", ".parquet", ".pkl", ".pt", ".tfrecord", ".tsv", ".txt")
)


def root_of(root: str) -> Path:
    """Return the absolute path of `data.root`; it may be relative to the repository's main root.

    Raises `UserError` for what is no path: a URL, nothing, a variable of the shell.
    """
    key = f"data.root = {root}"
    if not root.strip() or "\0" in root:
        raise UserError(f"data.root = {root!r}: is no path; allowed: a folder that holds a sub-folder per class")
    if scheme := _SCHEME.match(root):
        own = scheme[1].lower() == "file"
        way_out = (
            f"data.root={root[7:] or '/path'}" if own else "its folder on this machine: download it, and unpack it"
        )
        raise UserError(f"{key}: is a URL, and images are read from a folder alone; allowed: {way_out}")
    if (variable := re.search(r"\$\{?(\w+)", root)) and not (main_root() / root).exists():
        value = os.environ.get(variable[1])
        way_out = f"the shell puts {value!r} in its place outside of single quotes" if value else "it is not set"
        raise UserError(f"{key}: no such folder; ${variable[1]} is a variable of the shell: {way_out}; allowed: a path")
    try:
        return (main_root() / Path(root).expanduser()).absolute()
    except RuntimeError as error:
        raise UserError(f"{key}: {error}; allowed: a path, or ~/ for the home folder") from error


def what_it_is(root: Path) -> str:
    """Say what is in place of a folder, and the way out."""
    if root.is_symlink() and not root.exists():
        return f"is a link to {root.readlink()}, which is not there"
    if not root.exists():
        nearest = next(parent for parent in root.parents if parent.exists())
        return f"is not there{f', as {nearest} {what_it_is(nearest)}' if nearest.is_file() else f'; {nearest} is'}"
    if not root.is_file():
        return "is neither a file nor a folder"
    if zipfile.is_zipfile(root) or tarfile.is_tarfile(root):
        return "is an archive: unpack it, and name the folder"
    if root.suffix.lower() in suffixes():
        return "is a single image: name the folder around the folders of the classes"
    if root.suffix.lower() in _LIST:
        return "is a file of data or a list: write its images into a folder for each class"
    return "is a file"
