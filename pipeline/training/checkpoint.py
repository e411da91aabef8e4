"""Checkpoints: the state of training on disk, from which the same command continues to the same bits after a kill."""

import hashlib
import json
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..core import fingerprint
from ..core.errors import ResultError
from ..core.files import atomic_file, write_text
from ..core.machine import steering_variables
from ..core.turns import is_waited_for, turn
from ..models.backend import Classifier, EpochResult, State
from . import handover
from .results import HistoryRow, SeedResult
from .spec import RunSpec

FOLDER: Final = Path("checkpoints")
"""Relative to the main repository's root: DVC does not delete it, and it outlives temporary workspaces."""
_STATE: Final = "state.safetensors"
_COMPLETED: Final = "completed"
_KEEP_DAYS: Final = 14
KEEP_BYTES: Final = 4 << 30


@dataclass
class Progress:
    """The position of the training of one seed."""

    epoch: int = 1
    """The epoch in training: 1, 2, ...; `train.epochs` + 1 after the last."""
    step: int = 0
    """Number of steps taken in this epoch."""
    loss: list[np.ndarray] = field(default_factory=list)
    """float64, one value per step taken in this epoch, piece by piece."""
    correct: list[np.ndarray] = field(default_factory=list)
    """int64, one value per step taken in this epoch, piece by piece."""
    seconds: float = 0.0
    """Training time in this epoch, including waits for images."""
    history: list[HistoryRow] = field(default_factory=list)
    """Rows of the finished epochs."""
    model: str | None = None
    """Name of the logged model; None: not logged."""
    done: bool = False
    """Whether the model is saved and logged and the MLflow run has ended."""

    def add(self, part: EpochResult, waited: float) -> None:
        """Add the result of the next steps of this epoch; `waited`: seconds that they waited for images."""
        self.loss.append(part.loss)
        self.correct.append(part.correct)
        self.step += len(part.loss)
        self.seconds += part.seconds + waited

    def begin_next_epoch(self) -> None:
        """Move to the first step of the next epoch."""
        self.epoch, self.step, self.loss, self.correct, self.seconds = self.epoch + 1, 0, [], [], 0.0


class Checkpoint:
    """The checkpoint of one seed, or of a training with all its seeds, locked by this process."""

    def __init__(self, folder: Path, settings: str = "", world: int = 1) -> None:
        """`settings`: digest of what is trained, whatever the number of ranks. `world`: that number."""
        self._folder, self._settings, self._world = folder, settings, world
        self._writer: threading.Thread | None = None
        self.seconds = 0.0
        """Seconds that training has waited for checkpoints."""
        self.written = time.monotonic()
        """Time of the last `save`, on the clock of `time.monotonic`."""

    @property
    def run_link(self) -> Path:
        """The file that names the run which a later process resumes, see `Tracker.run`."""
        return self._folder / "run"

    def save(self, state: State, progress: Progress, *, wait: bool = False) -> None:
        """Replace the checkpoint atomically and durably. If that fails, warn on stderr and keep the old one.

        A thread writes it while training continues, so the arrays of `state` must not change afterwards. `wait`: return
        when it is on disk.
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
        """Wait until the last checkpoint is on disk."""
        if self._writer:
            self._writer.join()
        self._writer = None

    def _write(self, text: str, arrays: dict[str, np.ndarray]) -> None:
        try:
            with atomic_file(self._folder / _STATE, durable=True) as part:
                facts = {"settings": self._settings, "world": str(self._world)}
                save_file(arrays, part, {"progress": text, "digest": _digest(text, arrays), **facts})
        except (OSError, SafetensorError) as error:
            print(f"{self._folder}: no checkpoint: {error}; training goes on", file=sys.stderr, flush=True)

    def load(self) -> tuple[State, Progress] | None:
        """Return the saved state and position; None if there is no checkpoint, or, with a warning, if it is damaged."""
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

    def of_other_worlds(self) -> list[int]:
        """Return the numbers of ranks of which there are checkpoints of the same settings; without this one's."""
        found = set()
        for path in self._folder.parent.glob(f"*/{_STATE}"):
            with suppress(OSError, SafetensorError, ValueError), safe_open(path, "numpy") as file:
                facts = file.metadata()
                if facts.get("settings") == self._settings:
                    found.add(int(facts["world"]))
        return sorted(found - {self._world})

    def discard(self) -> None:
        """Delete the checkpoint; keep the link to its run."""
        self.wait()
        (self._folder / _STATE).unlink(missing_ok=True)

    @contextmanager
    def discarded_after_bad_results(self) -> Iterator[None]:
        """Discard the checkpoint if the body raises `ResultError`: continuing from it would fail again."""
        try:
            yield
        except ResultError:
            self.discard()
            raise

    @property
    def completed(self) -> bool:
        """Whether the training with all its seeds is complete: remaining checkpoints are deleted, not resumed."""
        return (self._folder / _COMPLETED).exists()

    def mark_complete(self) -> None:
        """Record that the training with all its seeds is complete."""
        write_text(self._folder / _COMPLETED, "")

    def unmark_complete(self) -> None:
        """Delete that record: the training begins anew."""
        (self._folder / _COMPLETED).unlink(missing_ok=True)

    def leave_result(self, spec: RunSpec, asked: str) -> None:
        """See `handover.leave`."""
        handover.leave(self._folder, spec, asked)

    def take_result(self, spec: RunSpec, asked: str) -> list[SeedResult] | None:
        """See `handover.take`."""
        return handover.take(self._folder, spec, asked)


@contextmanager
def locked(root: Path, spec: RunSpec, classifier: Classifier, seed: int | None) -> Iterator[Checkpoint]:
    """Lock and yield the checkpoint of one seed; `seed` None: of the training with all its seeds.

    Waits for a process that holds the lock, see `turns.turn`; raises `BusyError` if it writes to the same folder.
    Deletes the folder at the end if it holds neither a state nor a link to a run, and nobody waits for it.
    """
    folder = root / FOLDER / key_of(spec, classifier, seed)
    with turn(folder, spec.label, spec.output) as waited:
        checkpoint = Checkpoint(folder, _settings(spec, seed), spec.train.world)
        if not waited and not is_waited_for(folder):
            handover.discard(folder)
        try:
            for partial in folder.glob(".tmp*"):  # safetensors leaves these if it is killed while it writes
                partial.unlink()
            yield checkpoint
        finally:
            checkpoint.wait()
            resumable = (folder / _STATE).exists() or checkpoint.run_link.exists()
            if not resumable and not is_waited_for(folder):
                shutil.rmtree(folder, ignore_errors=True)


def key_of(spec: RunSpec, classifier: Classifier, seed: int | None) -> str:
    """Return `<framework>-<16 hexadecimal digits>`, a digest of everything that decides the bits.

    That is settings, data, seed, sweep, code, versions, device and execution. `seed` None: all seeds.
    """
    facts = {
        "spec": spec.defining(),
        "seed": seed,
        "seeds": list(spec.seeds) if seed is None else None,
        "sweep": spec.sweep.id if spec.sweep else None,
        "code": fingerprint.of_code("train", framework=spec.framework),
        "versions": fingerprint.versions(spec.framework),
        "variables": steering_variables(spec.framework),
        "device": asdict(classifier.device),
        "execution": classifier.execution,
    }
    return f"{spec.framework}-{fingerprint.of_json(facts, 16)}"


def _settings(spec: RunSpec, seed: int | None) -> str:
    """Return a digest of settings, data and seed, but not of the number of ranks: 32 hexadecimal digits."""
    settings = spec.defining()
    alone = {key: value for key, value in settings["train"].items() if key != "world"}
    return fingerprint.of_json({**settings, "train": alone, "seed": seed}, 32)


def tidy(root: Path) -> int:
    """Delete unlocked checkpoints that are older than two weeks, and the oldest ones beyond 4 GiB in total.

    Return the size in bytes of those that remain.
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
    """Return the modification time in seconds since 1970; now if another process has just deleted the folder."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()


def _size(folder: Path) -> int:
    """Return the size in bytes; 0 if another process has just deleted the folder."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())  # hardware instructions make it twice as fast as blake2b
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
