"""The objects that share the training of one `RunSpec`: backend, data, recorder, checkpoints."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core import fingerprint
from ..core.machine import memory_limit
from ..core.paths import main_root
from ..data.dataset import Split
from ..data.loader import BatchLoader
from ..models import backend
from ..models.backend import Classifier
from ..models.share import require_shares
from ..ranks.classifier import create as create_ranked
from ..tracking.store import store_uri
from .checkpoint import Checkpoint, Progress, locked, tidy
from .console import tell_other_worlds, tell_taken_over
from .recorder import Recorder
from .result_files import manifest_of
from .results import SeedResult
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
    group_checkpoint: Checkpoint
    """The checkpoint of the training with all its seeds, locked until training ends, as are those of the seeds."""
    checkpoints: Mapping[int, Checkpoint]
    """The checkpoint of each seed, in the order of `spec.seeds`."""
    asked: str = ""
    """Digest of where results are logged, see `handover`."""
    completed: bool = False
    """Whether the training, and what its caller does with the result, is complete."""
    steps_per_second: float = 0.0
    """Speed of the last piece of a plan; 0: not known yet. Signals wait for a piece, which is cut by it."""

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
        """The `Checkpoint.run_link` of each seed."""
        return [checkpoint.run_link for checkpoint in self.checkpoints.values()]

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds that training has waited for checkpoints."""
        return sum(checkpoint.seconds for checkpoint in self.checkpoints.values())

    def begin(self, seed: int) -> tuple[Checkpoint, Progress]:
        """Restore the classifier from the checkpoint of a seed, or initialise it.

        Return the checkpoint and the position of the training.
        """
        checkpoint = self.checkpoints[seed]
        saved = checkpoint.load()
        if saved is None:
            tell_other_worlds(self.spec, seed, checkpoint.of_other_worlds())
            backend.initialise(self.classifier, seed)
            return checkpoint, Progress()
        state, position = saved
        self.classifier.restore(state)
        images = min(position.step * self.spec.train.batch_size, self.examples)
        self.recorder.continued(seed, position, (position.epoch - 1) * self.examples + images)
        return checkpoint, position

    def take_over(self) -> list[SeedResult] | None:
        """Take over the result of another process, if this one has waited for it; None: train."""
        results = self.group_checkpoint.take_result(self.spec, self.asked)
        if results is not None:
            manifest_of(self.spec, self.classifier).write(self.spec.output / "manifest.json")
            tell_taken_over(self.spec)
        return results

    def complete(self) -> None:
        """Mark the training complete and delete its checkpoints, so that the same command starts a new training."""
        self.completed = True
        self.group_checkpoint.mark_complete()
        for checkpoint in (*self.checkpoints.values(), self.group_checkpoint):
            _delete(checkpoint, self.recorder)


@contextmanager
def open_training(spec: RunSpec) -> Iterator[TrainingContext]:
    """Open backend, data, recorder and checkpoints; the checkpoints are locked while the body runs.

    Waits for another process that trains the same; `TrainingContext.take_over` then has its result. Raises `UserError`
    if the network, the batch size or the data do not fit, `BusyError` if that process writes to the same folder.
    """
    root = main_root()
    count = len(spec.dataset.split("train").labels)
    batch_size = min(spec.train.batch_size, count)
    sizes = {batch_size, count % spec.train.batch_size} - {0}
    require_shares(spec.train.world, sizes)
    spec.architecture.require_normalisable(list(sizes))
    classifier = create_ranked(spec.framework, spec.architecture, spec.train)
    recorder = RunRecorder(spec, classifier, root)
    split = spec.dataset.split("train")
    with ExitStack() as locks:
        group, checkpoints = _lock(locks, root, spec, classifier)
        limit = memory_limit(spec.train.memory_mebibytes, classifier.device.type)
        loader = BatchLoader(classifier, split, limit, batch_size)
        compile_seconds = classifier.compile(sorted(sizes, reverse=True))
        recorder.begin(loader, compile_seconds, left_over=tidy(root))
        if group.completed:
            _delete_leftovers(group, checkpoints, recorder)
        recorder.group_link, validation = group.run_link, spec.dataset.split("validation")
        asked = fingerprint.of_json({"tracking": spec.tracking.model_dump(), "store": store_uri(root)}, 32)
        context = TrainingContext(spec, classifier, loader, validation, recorder, group, checkpoints, asked)
        yield context
        if context.completed:
            group.leave_result(spec, asked)


def _lock(
    locks: ExitStack, root: Path, spec: RunSpec, classifier: Classifier
) -> tuple[Checkpoint, Mapping[int, Checkpoint]]:
    """Lock the checkpoint of all seeds, then those of each.

    In ascending order, so that two trainings with the seeds [0, 1] and [1, 0] do not wait for each other.
    """
    group = locks.enter_context(locked(root, spec, classifier, None))
    by_seed = {seed: locks.enter_context(locked(root, spec, classifier, seed)) for seed in sorted(spec.seeds)}
    return group, {seed: by_seed[seed] for seed in spec.seeds}


def _delete_leftovers(group: Checkpoint, checkpoints: Mapping[int, Checkpoint], recorder: Recorder) -> None:
    """Delete the checkpoints of a completed training whose process was killed while it deleted them."""
    for checkpoint in (*checkpoints.values(), group):
        _delete(checkpoint, recorder)
    group.unmark_complete()


def _delete(checkpoint: Checkpoint, recorder: Recorder) -> None:
    checkpoint.discard()
    recorder.release(checkpoint.run_link)
