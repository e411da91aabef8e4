"""Turns: of several processes that are asked for the same work, one does it and the others wait."""

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from .errors import BusyError
from .files import write_json

_HOLDER: Final = "holder.json"
_WAITING: Final = "waiting"
_POLL_SECONDS: Final = 0.2
_TELL_SECONDS: Final = 60.0


@contextmanager
def turn(folder: Path, label: str, output: Path | None = None) -> Iterator[bool]:
    """Hold the lock of `folder` while the body runs; yield whether another process has held it until now.

    Waits for that process, says so at once and every minute, and ends with it, however it ends: the kernel releases its
    lock. Raises `BusyError` if that process writes to the same `output`: then there is nothing to wait for. None: two
    may.
    """
    folder.mkdir(parents=True, exist_ok=True)  # an error names this path, and not where a symbolic link leads to
    lock, holder = FileLock(folder / "lock"), folder / _HOLDER
    place = str(output.resolve()) if output else None
    waited = not _taken(lock)
    if waited:
        _wait(lock, folder, label, place)
    try:
        facts = {"pid": os.getpid(), "host": platform.node(), "since": time.time(), "output": place}
        write_json(holder, facts)
        yield waited
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_waited_for(folder: Path) -> bool:
    """Return whether a process waits for its turn. Deletes what a killed one has left."""
    for mark in (folder / _WAITING).glob("*"):
        lock = FileLock(mark)
        if not _taken(lock):
            return True
        mark.unlink(missing_ok=True)
        lock.release()
    return False


def _wait(lock: FileLock, folder: Path, label: str, place: str | None) -> None:
    began, told = time.monotonic(), -_TELL_SECONDS
    mark = FileLock(folder / _WAITING / uuid.uuid4().hex)
    while not _taken(mark):  # another process asks just now whether its owner lives
        time.sleep(_POLL_SECONDS)
    try:
        while not _taken(lock):
            other, its_place = _describe_holder(folder / _HOLDER)
            if place and place == its_place:
                raise BusyError(f"{label}: the same is being trained by {other} into {place}; wait for it, or end it")
            waited = time.monotonic() - began
            if waited - told >= _TELL_SECONDS and (other or waited > 1):
                told = waited
                so_far = f", for {waited / 60:.0f} min so far" if waited > _TELL_SECONDS else ""
                print(
                    f"{label}: the same is being trained by {other or 'another process'}; waiting for it{so_far} "
                    "(Ctrl-C ends this wait only)",
                    flush=True,
                )
            time.sleep(_POLL_SECONDS)
        print(f"{label}: waited {time.monotonic() - began:.0f} s", flush=True)
    finally:
        Path(mark.lock_file).unlink(missing_ok=True)
        mark.release()


def _taken(lock: FileLock) -> bool:
    """Try to take the lock, and return whether this process has it.

    Its last holder may delete the file: the lock of a file that has no name any more keeps nobody out, so the name must
    lead to the same file before and after.
    """
    for _ in range(3):
        before = _inode(lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        if before is not None and _inode(lock) == before:
            return True
        lock.release()
    return False


def _inode(lock: FileLock) -> int | None:
    try:
        return Path(lock.lock_file).stat().st_ino
    except OSError:
        return None


def _describe_holder(path: Path) -> tuple[str, str]:
    """Return who holds the lock, in words, and its output folder; both empty if it has not said so yet."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["since"]))
        return f"process {facts['pid']} on {facts['host']} since {since}", str(facts["output"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
