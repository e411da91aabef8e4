"""Where the training of a seed stands, on disk: what the same command continues from after a kill, to the same bits."""

import hashlib
import json
import os
import platform
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..core import fingerprint
from ..core.errors import BusyError, ResultError
from ..models.backend import Classifier, EpochResult, State
from .results import HistoryRow
from .spec import RunSpec

FOLDER: Final = Path("checkpoints")
"""Below the main repository's root: what DVC does not delete, and a temporary workspace does not take along."""
_STATE: Final = "state.safetensors"
_COMPLETED: Final = "completed"
_KEEP_DAYS: Final = 14
KEEP_BYTES: Final = 4 << 30


@dataclass
class Progress:
    """How far a seed has come."""

    epoch: int = 1
    """That is being trained; one more than `train.epochs`: none."""
    step: int = 0
    """Steps of this epoch that are taken."""
    loss: list[np.ndarray] = field(default_factory=list)
    """float64, of these steps, piece by piece."""
    correct: list[np.ndarray] = field(default_factory=list)
    """int64, of these steps, piece by piece."""
    seconds: float = 0.0
    """Of training, in this epoch."""
    history: list[HistoryRow] = field(default_factory=list)
    """Of the epochs that are over."""
    model: str | None = None
    """The name of the model that was logged."""
    done: bool = False
    """Whether the model is saved and logged, and the run has ended."""

    def add(self, part: EpochResult, waited: float) -> None:
        """The next steps of this epoch are taken; `waited`: seconds that they waited for images."""
        self.loss.append(part.loss)
        self.correct.append(part.correct)
        self.step += len(part.loss)
        self.seconds += part.seconds + waited

    def begin_next_epoch(self) -> None:
        """Count the epoch as over."""
        self.epoch, self.step, self.loss, self.correct, self.seconds = self.epoch + 1, 0, [], [], 0.0


class Checkpoint:
    """The checkpoint of one seed of a job, held by this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: threading.Thread | None = None
        self.seconds = 0.0
        """That training waited for checkpoints so far."""
        self.written = time.monotonic()
        """When the last one was taken."""

    @property
    def run_link(self) -> Path:
        """The file that names the run which a later process goes on with, see `Tracker.run`."""
        return self._folder / "run"

    def save(self, state: State, progress: Progress, *, wait: bool = False) -> None:
        """Replace what is there, at once and for good; training goes on, with a warning, where that cannot be done.

        It is written beside the training, unless this is to `wait`; the arrays of `state` must not change any more.
        """
        began = time.perf_counter()
        arrays = {f"weights/{name}": value for name, value in state.weights.items()}
        for slot, values in state.slots.items():
            arrays |= {f"slots/{slot}/{name}": value for name, value in values.items()}
        arrays["loss"] = np.concatenate(progress.loss or [np.zeros(0)])
        arrays["correct"] = np.concatenate(progress.correct or [np.zeros(0, np.int64)])
        facts = {key: value for key, value in vars(progress).items() if key not in ("loss", "correct")}
        history = [asdict(row) for row in progress.history]
        text = json.dumps(facts | {"history": history, "steps_taken": state.step, "slots": list(state.slots)})
        self.wait()
        self._writer = threading.Thread(target=self._write, args=(text, arrays), name="checkpoint")
        self._writer.start()
        if wait:
            self.wait()
        self.seconds += time.perf_counter() - began
        self.written = time.monotonic()

    def wait(self) -> None:
        """Until the last one is on disk."""
        if self._writer:
            self._writer.join()
        self._writer = None

    def _write(self, text: str, arrays: dict[str, np.ndarray]) -> None:
        try:
            _write(self._folder / _STATE, arrays, {"progress": text, "digest": _digest(text, arrays)})
        except (OSError, SafetensorError) as error:
            print(f"{self._folder}: no checkpoint: {error}; training goes on", file=sys.stderr, flush=True)

    def load(self) -> tuple[State, Progress] | None:
        """What is there; None, with a warning where it was damaged, if there is nothing to continue from."""
        path = self._folder / _STATE
        if not path.exists():
            return None
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["digest"] != _digest(metadata["progress"], arrays):
                raise ValueError("its content is not what was written")
            facts = json.loads(metadata["progress"])
            facts["history"] = [HistoryRow(**row) for row in facts["history"]]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path}: not continued from: {error}", stacklevel=2)
            return None
        slots = {slot: _below(arrays, f"slots/{slot}/") for slot in facts.pop("slots")}
        state = State(_below(arrays, "weights/"), slots, facts.pop("steps_taken"))
        return state, Progress(**facts | {"loss": [arrays["loss"]], "correct": [arrays["correct"]]})

    def discard(self) -> None:
        """It is no longer needed."""
        self.wait()
        (self._folder / _STATE).unlink(missing_ok=True)

    @contextmanager
    def discarded_after_bad_results(self) -> Iterator[None]:
        """Discard it if the body's result is bad: to continue from it would lead to the same."""
        try:
            yield
        except ResultError:
            self.discard()
            raise

    @property
    def completed(self) -> bool:
        """Whether the training with all its seeds is complete: what is left is to be deleted, not continued from."""
        return (self._folder / _COMPLETED).exists()

    def mark_complete(self) -> None:
        """Note that the training with all its seeds is complete."""
        (self._folder / _COMPLETED).touch()


@contextmanager
def locked(root: Path, spec: RunSpec, classifier: Classifier, seed: int | None) -> Iterator[Checkpoint]:
    """Be the only process that trains this; `seed` None: all of them.

    Raises `BusyError` that names the other one.
    """
    folder = root / FOLDER / key_of(spec, classifier, seed)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock", timeout=0), folder / "holder.json"
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"{spec.label}: the same is being trained by {_who(holder)}; wait for it, or end it") from error
    checkpoint = Checkpoint(folder)
    try:
        for left in folder.glob(".tmp*"):  # of safetensors, killed while it wrote
            left.unlink()
        holder.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.time()}))
        yield checkpoint
    finally:
        checkpoint.wait()
        holder.unlink(missing_ok=True)
        if not (folder / _STATE).exists() and not checkpoint.run_link.exists():
            shutil.rmtree(folder, ignore_errors=True)  # nothing to go on with
        lock.release()


def key_of(spec: RunSpec, classifier: Classifier, seed: int | None) -> str:
    """Name everything that decides the bits: settings, data, seed, code, versions, device."""
    facts = {
        "spec": spec.defining(),
        "seed": seed,
        "seeds": list(spec.seeds) if seed is None else None,
        "sweep": spec.sweep.id if spec.sweep else None,
        "code": fingerprint.of_code("train", framework=spec.framework),
        "versions": fingerprint.versions(spec.framework),
        "device": asdict(classifier.device),
        "execution": classifier.execution,
    }
    return f"{spec.framework}-{fingerprint.of_json(facts, 16)}"


def tidy(root: Path) -> int:
    """Remove what nobody holds: older than two weeks, or, the oldest first, what is beyond 4 GiB in all.

    Returns the bytes that are left.
    """
    folders = sorted((root / FOLDER).glob("*/"), key=_modified, reverse=True)
    total = 0
    for folder in folders:
        size = _size(folder)
        total += size
        if time.time() - _modified(folder) < _KEEP_DAYS * 86_400 and total <= KEEP_BYTES:
            continue
        lock = FileLock(folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        total -= size
    return total


def _modified(folder: Path) -> float:
    """Seconds since 1970; now, where its process is just removing it."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()


def _size(folder: Path) -> int:
    """Bytes; 0, where its process is just removing it."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0


def _who(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["since"]))
        return f"process {facts['pid']} on {facts['host']} since {since}"
    except (OSError, ValueError, KeyError):  # it is about to write, or has just ended
        return "another process"


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())  # in the processor's own instructions: half the time of blake2b
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """A crash at any moment leaves the old file or the new one, whole."""
    part = path.with_suffix(".part")
    try:
        save_file(arrays, part, metadata)
        _to_disk(part)
        part.replace(path)
        _to_disk(path.parent)
    except (OSError, SafetensorError):
        part.unlink(missing_ok=True)
        raise


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
