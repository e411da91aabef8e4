"""The provider `folder`: a user's images, in a sub-folder per class, or in `train`, `test`, `validation` with these.

The images stay in their folder. `fetch` writes an inventory with a digest of each; an image that has changed since
cannot be loaded.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ...config.schema.data import DataConfig
from ...core.errors import UserError
from ...core.files import write_text
from ...core.paths import main_root
from ...core.progress import steps
from ..downloader import AGAIN, Upstream
from ..images import Raw
from .source import Example

INVENTORY = "images.json"
_PART_NAMES = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}
_MOST_NAMES = 5  # in a message


@dataclass(frozen=True)
class FolderSource:
    """Images of an inventory, see `Source`."""

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, Sequence[tuple[str, int, str]]]
    """By part: (path relative to `root`, label, BLAKE2b of 32 hexadecimal digits)."""
    slow: bool = True

    @property
    def parts(self) -> dict[str, int]:
        """See `Source`."""
        return {part: len(files) for part, files in self.files.items()}

    def examples(self, part: str) -> Iterator[Example]:
        """See `Source`."""
        for name, label, digest in self.files[part]:
            yield Example(_printable(name), label, partial(_load, self.root / name, digest))


def root_of(data: DataConfig) -> Path:
    """Return the absolute path of the images' folder; `data.root` may be relative to the repository's main root."""
    return (main_root() / Path(str(data.root)).expanduser()).absolute()


def signature(data: DataConfig) -> str:
    """Return a hash of names, sizes and times of all images, 32 hexadecimal digits: it changes if an image does.

    Raises `UserError` as `fetch` does.
    """
    root = root_of(data)
    digest = hashlib.blake2b(os.fsencode(root), digest_size=16)
    for files in _survey(data)[0].values():
        for path in (path for paths in files.values() for path in paths):
            status = path.stat()
            digest.update(
                os.fsencode(path.relative_to(root))
                + f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode()
            )
    return digest.hexdigest()


def fetch(data: DataConfig, upstream: Upstream) -> None:
    """Write the inventory. Raises `UserError` naming the folder that is missing, empty or not in the layout."""
    root = root_of(data)
    parts, others = _survey(data)
    paths = [path for by_class in parts.values() for images in by_class.values() for path in images]
    digests: dict[Path, str] = {}
    with steps(f"read {root.name}", len(paths), "files") as advance, ThreadPoolExecutor() as pool:
        for path, digest in zip(paths, pool.map(_digest, paths), strict=True):
            digests[path] = digest
            advance()
    inventory = {
        part: {name: {str(p.relative_to(root)): digests[p] for p in images} for name, images in by_class.items()}
        for part, by_class in parts.items()
    }
    write_text(upstream.folder / INVENTORY, json.dumps(inventory, indent=1) + "\n")
    if others:
        print(f"{root}: left out, as they are no images: {_some(sorted(others))}")


@contextmanager
def opened(data: DataConfig, upstream: Upstream) -> Iterator[FolderSource]:
    """Open the inventory. Raises `UserError` if it cannot be read."""
    path = upstream.folder / INVENTORY
    try:
        inventory: dict[str, dict[str, dict[str, str]]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {AGAIN}") from error
    classes = sorted(inventory["train"])
    files = {
        part: [
            (name, classes.index(label), digest)
            for label, images in by_class.items()
            for name, digest in images.items()
        ]
        for part, by_class in inventory.items()
    }
    yield FolderSource(root_of(data), tuple(map(_printable, classes)), files)


def _survey(data: DataConfig) -> tuple[dict[str, dict[str, list[Path]]], set[str]]:
    """Return the images by part and class, and the names of the files that are not images.

    Raises `UserError` naming the folder or class that does not fit the layout.
    """
    root = root_of(data)
    if not root.is_dir():
        raise UserError(
            f"data.root = {data.root}: {root} is not a folder; allowed: one that holds a sub-folder per class"
        )
    top = _folders(root)
    roles = {path: _PART_NAMES.get(path.name.casefold(), "") for path in top}
    given = [role for role in roles.values() if role]
    others: set[str] = set()
    if "train" in given and (len(given) > 1 or len(top) == 1):
        if strays := [path.name for path, role in roles.items() if given.count(role) != 1]:
            raise UserError(
                f"data.root = {data.root}: {_some(strays)}; allowed beside train: test, one of validation, val, valid"
            )
        parts = {role: _by_class(path, data, others) for path, role in roles.items()}
    else:
        parts = {"train": _by_class(root, data, others)}
    classes = set(parts["train"])
    for part, by_class in parts.items():
        if unknown := sorted(set(by_class) - classes):
            raise UserError(f"data.root = {data.root}: {part} has classes that train has not: {_some(unknown)}")
    return parts, others


def _by_class(folder: Path, data: DataConfig, others: set[str]) -> dict[str, list[Path]]:
    """Return the images by class. Adds to `others` the names of the files that are not images."""
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    images: dict[str, list[Path]] = {}
    for home in _folders(folder):
        paths = sorted(p for p in home.rglob("*") if p.is_file() and not _hidden(p.relative_to(home)))
        images[home.name] = [path for path in paths if path.suffix.lower() in suffixes]
        others |= {str(path.relative_to(folder)) for path in paths if path.suffix.lower() not in suffixes}
    if len(images) < 2:
        raise UserError(
            f"data.root = {data.root}: {folder} has {len(images)} sub-folders; allowed: two or more, one per class, as "
            f"in {folder}/cat/1.png"
        )
    if empty := [name for name, paths in images.items() if not paths]:
        raise UserError(f"data.root = {data.root}: no images in {_some([str(folder / name) for name in empty])}")
    return images


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.parts)


def _printable(name: str) -> str:
    """Escape the bytes of a name that are not valid UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return _printable(", ".join(names[:_MOST_NAMES])) + (f" and {more:,} more" if more > 0 else "")


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
    image = Image.open(io.BytesIO(content))
    image.load()
    return image
