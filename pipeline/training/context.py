"""What belongs together while one `RunSpec` is trained: backend, data, tracker, checkpoints."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..core.machine import memory_limit
from ..core.paths import main_root
from ..core.progress import Steps, steps
from ..data.dataset import Split
from ..data.loader import BatchLoader
from ..models import backend
from ..models.backend import Classifier
from ..tracking.tracker import Tracker
from . import console
from .checkpoint import Checkpoint, Progress, locked, tidy
from .spec import RunSpec


@dataclass
class TrainingContext:
    """Everything that the steps of the loop share. `open_training` makes it."""

    spec: RunSpec
    root: Path
    """The main repository's root, see `core.paths`."""
    classifier: Classifier
    loader: BatchLoader
    """Of the training split."""
    validation: Split
    tracker: Tracker
    compile_seconds: float
    locks: ExitStack
    whole: Checkpoint
    """Of the training with all its seeds; `checkpoints`: of each seed that has begun."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    progress: Steps = field(init=False)
    """See `show_progress`."""

    @property
    def examples(self) -> int:
        """How many are trained on in an epoch."""
        return len(self.loader.split.labels)

    def claim(self, seed: int) -> Checkpoint:
        """Lock the checkpoint of a seed until training ends. Raises `BusyError` where another process holds it."""
        checkpoint = self.locks.enter_context(locked(self.root, self.spec, self.classifier, seed))
        self.checkpoints.append(checkpoint)
        return checkpoint

    def restore_or_initialise(self, checkpoint: Checkpoint, seed: int) -> Progress:
        """Put the classifier where the seed was cut short, or at the beginning; return where that is."""
        found = checkpoint.load()
        if found is None:
            backend.initialise(self.classifier, seed)
            return Progress()
        state, position = found
        self.classifier.restore(state)
        taken = min(position.step * self.spec.train.batch_size, self.examples)
        self.progress.skip((position.epoch - 1) * self.examples + taken)
        console.tell_continued(self.progress, self.spec, seed, position)
        return position

    def complete(self) -> None:
        """Mark the training complete and delete its checkpoints: the same command begins anew from now on."""
        self.whole.mark_complete()
        for checkpoint in (*self.checkpoints, self.whole):
            _delete(checkpoint, self.tracker)

    @contextmanager
    def show_progress(self) -> Iterator[None]:
        """Count images for a person while the body runs."""
        total = self.examples * self.spec.train.epochs * len(self.spec.seeds)
        with steps(f"train {self.spec.label}", total, "images") as self.progress:
            yield


@contextmanager
def open_training(spec: RunSpec) -> Iterator[TrainingContext]:
    """Open the backend with its data, the tracker and the checkpoints, which stay locked while the body runs.

    Raises `UserError` where the network, the batch size or the data do not fit, `BusyError` where another process
    trains the same.
    """
    root = main_root()
    classifier = backend.create(spec.framework, spec.architecture, spec.train)
    tracker = Tracker(spec.tracking, root)
    split = spec.dataset.split("train")
    count = len(split.labels)
    batch_size = min(spec.train.batch_size, count)
    loader = BatchLoader(
        classifier, split, memory_limit(spec.train.memory_mebibytes, classifier.device.type), batch_size
    )
    sizes = {batch_size, count % spec.train.batch_size} - {0}
    spec.architecture.require_normalisable(list(sizes))
    compile_seconds = classifier.compile(sorted(sizes, reverse=True))
    console.tell_start(spec, classifier, loader, compile_seconds)
    console.tell_left_over(root, tidy(root))
    _delete_leftovers(root, spec, classifier, tracker)
    with ExitStack() as locks:
        whole = locks.enter_context(locked(root, spec, classifier, None))
        validation = spec.dataset.split("validation")
        yield TrainingContext(spec, root, classifier, loader, validation, tracker, compile_seconds, locks, whole)


def _delete_leftovers(root: Path, spec: RunSpec, classifier: Classifier, tracker: Tracker) -> None:
    """Delete what a process left that was killed while it deleted its checkpoints."""
    with locked(root, spec, classifier, None) as whole:
        if whole.completed:
            for seed in spec.seeds:
                with locked(root, spec, classifier, seed) as checkpoint:
                    _delete(checkpoint, tracker)
            _delete(whole, tracker)


def _delete(checkpoint: Checkpoint, tracker: Tracker) -> None:
    checkpoint.discard()
    tracker.release(checkpoint.run_link)
