"""Atomic writes of files and folders; text is always UTF-8."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from .errors import UserError

_NO_FOLDER: Final = (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)


def make_folder(folder: Path, name: str = "") -> None:
    """Make the folder and those above it, where missing.

    Raises `UserError`, which begins with `name` (default: the folder), if there can be none; OSError if the disk is
    full or may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        blocked = in_the_way(folder)
        reason = f"{blocked} is no folder" if blocked else error.strerror
        way_out = "choose another folder, such as outputs/mine" if name else "move it away, or choose another folder"
        raise UserError(f"{name or folder}: cannot be made ({reason}); {way_out}") from error


def in_the_way(path: Path) -> Path | None:
    """Return what stands in place of a folder of this path, itself included: a file, or a link that leads nowhere."""
    above = (part for part in (path, *path.parents) if os.path.lexists(part))
    nearest = next(above, None)
    return nearest if nearest and not nearest.is_dir() else None


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` if the body succeeds and is deleted if it raises.

    If `folder` is a symbolic link, it stays one: the folder that it leads to is replaced.
    """
    target = folder.resolve() if folder.is_symlink() else folder
    building = target.with_name(f"{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    make_folder(building.parent, str(target))
    building.mkdir()
    try:
        yield building
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield the path of a new file beside `path`, which it replaces if the body succeeds, or is deleted if it raises.

    Every file is written so. The bytes under the old name are never changed: DVC may have made it a link into its
    cache (`cache.type` hardlink or symlink), and read-only. The new name ends as the old one does, since NumPy and
    matplotlib go by that. `durable`: flush it to the disk, so that after a crash either content is complete. Creates
    missing parent folders.
    """
    make_folder(path.parent)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    part.unlink(missing_ok=True)  # a killed process may have left it
    try:
        yield part
        if durable:
            _to_disk(part)
        part.replace(path)
        if durable:
            _to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file atomically: a reader sees the old text or the new one. Creates missing parent folders."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file atomically, as `write_text` does."""
    with atomic_file(path) as part:
        part.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with `write_text`. Raises ValueError for NaN and infinity, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, advice: str = "run `dvc repro`") -> Any:
    """Return the parsed JSON. Raises `UserError` that names the file and ends with `advice`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {advice}") from error


def read_text(path: Path, advice: str = "run `dvc repro`") -> str:
    """Return the text. Raises `UserError` that names the file and ends with `advice`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {advice}") from error


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
