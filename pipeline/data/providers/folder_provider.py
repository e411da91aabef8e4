"""A user's own images: one sub-folder per class, or `train`, `test` and `validation` that hold these.

They stay where they are. What `fetch` leaves is their inventory, with a digest of each: the stage `prepare` refuses a
file that has changed since.
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
from ...core.paths import main_root
from ...core.progress import steps
from ..downloader import AGAIN, Upstream
from ..images import Raw
from .source import Example

INVENTORY = "images.json"
_PART_NAMES = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}
_NAMED = 5  # files in a message, at most


@dataclass(frozen=True)
class FolderSource:
    """See `Source`; `files`: by part, each file's path below `root`, label and digest."""

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, Sequence[tuple[str, int, str]]]
    slow: bool = True

    @property
    def parts(self) -> dict[str, int]:
        """See `Source`."""
        return {part: len(files) for part, files in self.files.items()}

    def examples(self, part: str) -> Iterator[Example]:
        """See `Source`."""
        for name, label, digest in self.files[part]:
            yield Example(_shown(name), label, partial(_load, self.root / name, digest))


def root_of(data: DataConfig) -> Path:
    """The folder of the images; a relative one is below the repository's root."""
    return (main_root() / Path(str(data.root)).expanduser()).absolute()


def signature(data: DataConfig) -> str:
    """Names, sizes and times of all images: changes when one of them does."""
    root = root_of(data)
    digest = hashlib.blake2b(os.fsencode(root), digest_size=16)
    for files in _survey(data)[0].values():
        for path in (path for paths in files.values() for path in paths):
            facts = path.stat()
            digest.update(
                os.fsencode(path.relative_to(root))
                + f" {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}\n".encode()
            )
    return digest.hexdigest()


def fetch(data: DataConfig, upstream: Upstream) -> None:
    """Write the inventory. Raises `UserError` naming the folder that is not as it should be."""
    root = root_of(data)
    parts, others = _survey(data)
    paths = [path for by_class in parts.values() for found in by_class.values() for path in found]
    digests: dict[Path, str] = {}
    with steps(f"read {root.name}", len(paths), "files") as advance, ThreadPoolExecutor() as pool:
        for path, digest in zip(paths, pool.map(_digest, paths), strict=True):
            digests[path] = digest
            advance()
    inventory = {
        part: {name: {str(p.relative_to(root)): digests[p] for p in found} for name, found in by_class.items()}
        for part, by_class in parts.items()
    }
    (upstream.folder / INVENTORY).write_text(json.dumps(inventory, indent=1) + "\n")
    if others:
        print(f"{root}: left out, as they are no images: {_some(sorted(others))}")


@contextmanager
def opened(data: DataConfig, upstream: Upstream) -> Iterator[FolderSource]:
    """The images of the inventory."""
    path = upstream.folder / INVENTORY
    try:
        inventory: dict[str, dict[str, dict[str, str]]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {AGAIN}") from error
    classes = sorted(inventory["train"])
    files = {
        part: [
            (name, classes.index(kind), digest) for kind, found in by_class.items() for name, digest in found.items()
        ]
        for part, by_class in inventory.items()
    }
    yield FolderSource(root_of(data), tuple(map(_shown, classes)), files)


def _survey(data: DataConfig) -> tuple[dict[str, dict[str, list[Path]]], set[str]]:
    """Images by part and class, and the names of files that are none."""
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
        if strange := [path.name for path, role in roles.items() if given.count(role) != 1]:
            raise UserError(
                f"data.root = {data.root}: {_some(strange)}; allowed beside train: test, one of validation, val, valid"
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
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: dict[str, list[Path]] = {}
    for own in _folders(folder):
        paths = sorted(p for p in own.rglob("*") if p.is_file() and not _hidden(p.relative_to(own)))
        found[own.name] = [path for path in paths if path.suffix.lower() in known]
        others |= {str(path.relative_to(folder)) for path in paths if path.suffix.lower() not in known}
    if len(found) < 2:
        raise UserError(
            f"data.root = {data.root}: {folder} has {len(found)} sub-folders; allowed: two or more, one a class, as "
            f"in {folder}/cat/1.png"
        )
    if empty := [name for name, paths in found.items() if not paths]:
        raise UserError(f"data.root = {data.root}: no images in {_some([str(folder / name) for name in empty])}")
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.parts)


def _shown(name: str) -> str:
    """In letters that can be written, whatever bytes the name is."""
    return name.encode(errors="backslashreplace").decode()


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return _shown(", ".join(names[:_NAMED])) + (f" and {more:,} more" if more > 0 else "")


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
