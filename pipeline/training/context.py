"""What belongs together while one `RunSpec` is trained: backend, data, recorder, checkpoints."""

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
    """Everything that the steps of the loop share. `open_training` makes it."""

    spec: RunSpec
    classifier: Classifier
    loader: BatchLoader
    """Of the training split."""
    validation: Split
    recorder: Recorder
    locks: ExitStack
    root: Path
    """The main repository's root, see `core.paths`."""
    whole: Checkpoint
    """Of the training with all its seeds."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """Of each seed that has begun."""

    @property
    def examples(self) -> int:
        """How many are trained on in an epoch."""
        return len(self.loader.split.labels)

    @property
    def images(self) -> int:
        """How many are trained on in all epochs of all seeds."""
        return self.examples * self.spec.train.epochs * len(self.spec.seeds)

    @property
    def run_links(self) -> list[Path]:
        """Of the seeds that have begun."""
        return [checkpoint.run_link for checkpoint in self.checkpoints]

    @property
    def checkpoint_seconds(self) -> float:
        """That training has waited for checkpoints."""
        return sum(checkpoint.seconds for checkpoint in self.checkpoints)

    def claim(self, seed: int) -> Checkpoint:
        """Lock the checkpoint of a seed until training ends. Raises `BusyError` where another process holds it."""
        checkpoint = self.locks.enter_context(locked(self.root, self.spec, self.classifier, seed))
        self.checkpoints.append(checkpoint)
        return checkpoint

    def restore_or_initialise(self, checkpoint: Checkpoint, seed: int) -> Progress:
        """Put the classifier where the seed was cut short, or at the beginning; return where that is."""
        stored = checkpoint.load()
        if stored is None:
            backend.initialise(self.classifier, seed)
            return Progress()
        state, position = stored
        self.classifier.restore(state)
        taken = min(position.step * self.spec.train.batch_size, self.examples)
        self.recorder.continued(seed, position, (position.epoch - 1) * self.examples + taken)
        return position

    def complete(self) -> None:
        """Mark the training complete and delete its checkpoints: the same command begins anew from now on."""
        self.whole.mark_complete()
        for checkpoint in (*self.checkpoints, self.whole):
            _delete(checkpoint, self.recorder)


@contextmanager
def open_training(spec: RunSpec) -> Iterator[TrainingContext]:
    """Open the backend with its data, the recorder and the checkpoints, which stay locked while the body runs.

    Raises `UserError` where the network, the batch size or the data do not fit, `BusyError` where another process
    trains the same.
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
        whole = locks.enter_context(locked(root, spec, classifier, None))
        recorder.group_link = whole.run_link
        yield TrainingContext(spec, classifier, loader, spec.dataset.split("validation"), recorder, locks, root, whole)


def _delete_leftovers(root: Path, spec: RunSpec, classifier: Classifier, recorder: Recorder) -> None:
    """Delete what a process left that was killed while it deleted its checkpoints."""
    with locked(root, spec, classifier, None) as whole:
        if whole.completed:
            for seed in spec.seeds:
                with locked(root, spec, classifier, seed) as checkpoint:
                    _delete(checkpoint, recorder)
            _delete(whole, recorder)


def _delete(checkpoint: Checkpoint, recorder: Recorder) -> None:
    checkpoint.discard()
    recorder.release(checkpoint.run_link)
