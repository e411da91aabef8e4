"""The objects that share the training of one `RunSpec`: backend, data, recorder, checkpoints."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..core.machine import memory_limit
from ..core.paths import main_root
from ..data.dataset import Split
from ..data.loader import BatchLoader
from ..models import backend
from ..models.backend import Classifier
from .checkpoint import Checkpoint, Progress, locked, tidy
from .recorder import Recorder
from .run_logging import RunRecorder
from .spec import RunSpec


@dataclass
class TrainingContext:
    """The objects that the functions of the loop share; `open_training` creates it."""

    spec: RunSpec
    classifier: Classifier
    loader: BatchLoader
    """Loads the training split."""
    validation: Split
    recorder: Recorder
    locks: ExitStack
    """Holds the locks of the checkpoints until training ends."""
    root: Path
    """The main repository's root, see `core.paths`."""
    group_checkpoint: Checkpoint
    """The checkpoint of the training with all its seeds."""
    steps_per_second: float = 0.0
    """Speed of the last piece of a plan; 0: not known yet. Signals wait for a piece, which is cut by it."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """The checkpoint of each seed that has begun."""

    @property
    def examples(self) -> int:
        """Number of training examples: those of one epoch."""
        return len(self.loader.split.labels)

    @property
    def images(self) -> int:
        """Number of images in all epochs of all seeds."""
        return self.examples * self.spec.train.epochs * len(self.spec.seeds)

    @property
    def run_links(self) -> list[Path]:
        """The `Checkpoint.run_link` of each seed that has begun."""
        return [checkpoint.run_link for checkpoint in self.checkpoints]

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds that training has waited for checkpoints."""
        return sum(checkpoint.seconds for checkpoint in self.checkpoints)

    def begin(self, seed: int) -> tuple[Checkpoint, Progress]:
        """Lock the checkpoint of a seed until training ends; restore the classifier from it, or initialise it.

        Return the checkpoint and the position of the training. Raises `BusyError` if another process holds the lock.
        """
        checkpoint = self.locks.enter_context(locked(self.root, self.spec, self.classifier, seed))
        self.checkpoints.append(checkpoint)
        saved = checkpoint.load()
        if saved is None:
            backend.initialise(self.classifier, seed)
            return checkpoint, Progress()
        state, position = saved
        self.classifier.restore(state)
        images = min(position.step * self.spec.train.batch_size, self.examples)
        self.recorder.continued(seed, position, (position.epoch - 1) * self.examples + images)
        return checkpoint, position

    def complete(self) -> None:
        """Mark the training complete and delete its checkpoints, so that the same command starts a new training."""
        self.group_checkpoint.mark_complete()
        for checkpoint in (*self.checkpoints, self.group_checkpoint):
            _delete(checkpoint, self.recorder)


@contextmanager
def open_training(spec: RunSpec) -> Iterator[TrainingContext]:
    """Open backend, data, recorder and checkpoints; the checkpoints are locked while the body runs.

    Raises `UserError` if the network, the batch size or the data do not fit, `BusyError` if another process trains the
    same spec.
    """
    root = main_root()
    classifier = backend.create(spec.framework, spec.architecture, spec.train)
    recorder = RunRecorder(spec, classifier, root)
    split = spec.dataset.split("train")
    count = len(split.labels)
    batch_size = min(spec.train.batch_size, count)
    limit = memory_limit(spec.train.memory_mebibytes, classifier.device.type)
    loader = BatchLoader(classifier, split, limit, batch_size)
    sizes = {batch_size, count % spec.train.batch_size} - {0}
    spec.architecture.require_normalisable(list(sizes))
    compile_seconds = classifier.compile(sorted(sizes, reverse=True))
    recorder.begin(loader, compile_seconds, left_over=tidy(root))
    _delete_leftovers(root, spec, classifier, recorder)
    with ExitStack() as locks:
        group = locks.enter_context(locked(root, spec, classifier, None))
        recorder.group_link = group.run_link
        yield TrainingContext(spec, classifier, loader, spec.dataset.split("validation"), recorder, locks, root, group)


def _delete_leftovers(root: Path, spec: RunSpec, classifier: Classifier, recorder: Recorder) -> None:
    """Delete the checkpoints of a completed training whose process was killed while it deleted them."""
    with locked(root, spec, classifier, None) as group:
        if group.completed:
            for seed in spec.seeds:
                with locked(root, spec, classifier, seed) as checkpoint:
                    _delete(checkpoint, recorder)
            _delete(group, recorder)


def _delete(checkpoint: Checkpoint, recorder: Recorder) -> None:
    checkpoint.discard()
    recorder.release(checkpoint.run_link)
