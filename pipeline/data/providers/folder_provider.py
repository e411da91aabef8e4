"""The provider `folder`: a user's images, in a sub-folder per class, or in `train`, `test`, `validation` with these.

The images stay in their folder. `fetch` writes an inventory with a digest of each; an image that has changed since
cannot be loaded.
"""

import hashlib
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ...config.schema.data import DataConfig
from ...core.errors import UserError
from ...core.files import read_json, write_json
from ...core.progress import steps
from ..downloader import AGAIN, Upstream
from ..images import Raw, decode
from ..inventory import INVENTORY
from ..remarks import Remark
from .folder_names import printable, some
from .folder_root import root_of
from .folder_tree import Tree, survey
from .source import Example

_MOST_SHOWN: Final = 5  # names in a line on the terminal


@dataclass(frozen=True)
class FolderSource:
    """Images of an inventory, see `Source`."""

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, Sequence[tuple[str, int, str]]]
    """By part: (path relative to `root`, label, BLAKE2b of 32 hexadecimal digits)."""
    remarks: Sequence[Remark] = ()
    slow: bool = True

    @property
    def parts(self) -> dict[str, int]:
        """See `Source`."""
        return {part: len(files) for part, files in self.files.items()}

    def examples(self, part: str) -> Iterator[Example]:
        """See `Source`."""
        for name, label, digest in self.files[part]:
            yield Example(printable(name), label, partial(_load, self.root / name, digest))


def signature(data: DataConfig) -> str:
    """Return a hash of names, sizes and times of all images, 32 hexadecimal digits: it changes if an image does.

    It changes as well if other files are left out. Raises `UserError` as `fetch` does.
    """
    root = root_of(str(data.root))
    tree = _survey(data)
    digest = hashlib.blake2b(repr(tree.remarks()).encode() + os.fsencode(root), digest_size=16)
    for files in tree.parts.values():
        for path in (path for paths in files.values() for path in paths):
            try:
                status = path.stat()
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror}") from error
            digest.update(
                os.fsencode(path.relative_to(root))
                + f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode()
            )
    return digest.hexdigest()


def fetch(data: DataConfig, upstream: Upstream) -> None:
    """Write the inventory. Raises `UserError` naming the folder that is missing, empty or not in the layout."""
    root = root_of(str(data.root))
    tree = _survey(data)
    paths = [path for by_class in tree.parts.values() for images in by_class.values() for path in images]
    digests: dict[Path, str] = {}
    with steps(f"read {root.name}", len(paths), "files") as advance, ThreadPoolExecutor() as pool:
        for path, digest in zip(paths, pool.map(_digest, paths), strict=True):
            digests[path] = digest
            advance()
    inventory = {
        part: {name: {str(p.relative_to(root)): digests[p] for p in images} for name, images in by_class.items()}
        for part, by_class in tree.parts.items()
    }
    remarks = tree.remarks()
    write_json(upstream.folder / INVENTORY, {"parts": inventory, "remarks": [each.model_dump() for each in remarks]})
    for remark in remarks:
        print(f"{root}: {remark.sentence(_MOST_SHOWN)}")


@contextmanager
def opened(data: DataConfig, upstream: Upstream) -> Iterator[FolderSource]:
    """Open the inventory. Raises `UserError` if it cannot be read, or lacks a class of `data.classes`."""
    inventory = read_json(upstream.folder / INVENTORY, AGAIN)
    parts: dict[str, dict[str, dict[str, str]]] = inventory["parts"]
    remarks = [Remark.model_validate(each) for each in inventory["remarks"]]
    classes = _ordered(data, parts["train"])
    files = {
        part: [
            (name, classes.index(label), digest)
            for label, images in by_class.items()
            for name, digest in images.items()
        ]
        for part, by_class in parts.items()
    }
    yield FolderSource(root_of(str(data.root)), classes, files, remarks)


def _survey(data: DataConfig) -> Tree:
    """Return the tree below `data.root`. Raises `UserError` also for a class that `data.classes` lacks or adds."""
    tree = survey(root_of(str(data.root)), f"data.root = {data.root}", classes_given=bool(data.classes))
    _ordered(data, tree.parts["train"])
    return tree


def _ordered(data: DataConfig, folders: Collection[str]) -> tuple[str, ...]:
    """Return the classes by label: in the order of `data.classes`, which names each folder, else sorted."""
    if not data.classes:
        return tuple(sorted(folders))
    classes = tuple(data.classes)
    if sorted(classes) != sorted(folders):
        unknown = [name for name in classes if name not in folders]
        absent = [name for name in sorted(folders) if name not in classes]
        wrong = [f"there is no folder {some(unknown)}"] if unknown else []
        wrong += [f"the folder {some(absent)} is not in it"] if absent else []
        raise UserError(
            f"data.classes = {data.classes}: {' and '.join(wrong) or 'a name occurs twice'}; allowed: the names of all "
            f"class folders ({some(sorted(folders))}), in the order of the labels, or null. To rename a class, or to "
            "leave it out, rename or move its folder"
        )
    return classes


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _load(path: Path, digest: str) -> Raw:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {AGAIN}") from error
    if hashlib.blake2b(content, digest_size=16).hexdigest() != digest:
        raise UserError(f"{path}: has changed since it was listed; {AGAIN}")
    return decode(io.BytesIO(content))
