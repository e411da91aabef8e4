"""The evidence of what one framework computes, step by step: `trace` gathers it, `parity` compares it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ..config.schema.trace import TraceConfig
from ..config.schema.train import TrainConfig
from ..core.errors import UserError
from ..core.files import atomic_file
from ..core.progress import Steps, steps
from ..core.records import Record
from ..data.dataset import Dataset
from ..data.plan import EpochPlan, draw_epoch
from ..models import backend
from ..models.architecture import Architecture
from ..models.manifest import Manifest
from ..models.share import require_shares
from ..ranks.classifier import create as create_ranked

Precision = Literal["float64", "float32"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float64", "float32")
_VALIDATION_EXAMPLES: Final = 500
"""Number of validation examples that the final weights are evaluated on, at most."""


class Batch(Record):
    """One batch as the network receives it, read back from the device."""

    examples: int
    """Number of examples in the batch."""
    dtype: str
    """NumPy dtype of the images."""
    digest: str
    """BLAKE2b of images and labels, 16 hexadecimal digits."""


class TraceFacts(Record):
    """The content of `trace.json`: everything but the arrays. The same evidence gives the same bytes."""

    manifest: Manifest
    batches: dict[Precision, list[Batch]]
    """One entry per optimiser step."""
    parameters: dict[str, list[int]]
    """Shapes of all arrays of the network, by name."""


@dataclass(frozen=True)
class Evidence:
    """What to trace: the network, its training and the data, which are the same for every framework."""

    framework: str
    architecture: Architecture
    train: TrainConfig
    trace: TraceConfig
    dataset: Dataset

    @property
    def examples(self) -> int:
        """Number of training examples in use, from the start of the training split.

        If the split is large enough, two epochs make at least `trace.steps` steps. Every epoch ends with a partial
        batch (unless batches hold one example).
        """
        size = self.trace.batch_size
        wanted = (self.trace.steps // 2 + 2) * size + max(size // 3, self.train.world)
        count = min(wanted, len(self.dataset.split("train").labels))
        partial = count % size
        if partial == 0 and count > 1:
            return count - 1
        return count if partial >= self.train.world or count < size else count - partial

    def plans(self) -> Iterator[EpochPlan]:
        """Yield the plan of each epoch; the last one ends at `trace.steps` in all."""
        left, epoch = self.trace.steps, 0
        per_epoch = -(-self.examples // self.trace.batch_size)
        train = self.train.model_copy(update={"epochs": -(-left // per_epoch), "batch_size": self.trace.batch_size})
        while left:
            plan = draw_epoch(train, examples=self.examples, seed=self.trace.seed, epoch=epoch)
            yield plan.segment(0, min(left, plan.steps))
            left, epoch = left - min(left, plan.steps), epoch + 1

    def settings(self) -> dict[str, Any]:
        """Return every setting that two frameworks must have in common."""
        return {
            "model": self.architecture.model.model_dump(),
            "train": self.train.model_dump(),
            "trace": self.trace.model_dump(),
            "data": self.dataset.identity,
            "image_shape": list(self.architecture.image_shape),
            "classes": self.architecture.classes,
        }


def gather(evidence: Evidence, output: Path) -> None:
    """Trace in float64 and in float32; write `trace.json` and `arrays.npz` into `output`.

    The arrays are named `<precision>/<what>`: `loss` (steps,), `predictions` (examples, classes), in float64 also
    `outputs` of the first batch; and `<precision>/<what>/<parameter>`: `initial`, `weights at the end`, in float64 also
    `gradients` and `weights after step 1`. Of several ranks there are also `alone/loss` and `alone/weights at the end`:
    those of one process, in float64. Raises `UserError` if the framework cannot do what the settings ask for, or if a
    batch has fewer examples than there are ranks.
    """
    require_shares(evidence.train.world, {int(size) for plan in evidence.plans() for size in plan.batch_sizes})
    output.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    with steps(f"trace {evidence.framework}", len(PRECISIONS) * evidence.trace.steps, "steps") as progress:
        gathered = {precision: _gather(evidence, precision, arrays, progress) for precision in PRECISIONS}
        if evidence.train.world > 1:
            _gather_alone(evidence, gathered["float64"][0].machine.threads, arrays)
    with atomic_file(output / "arrays.npz") as part:
        np.savez(part, **arrays)  # type: ignore[arg-type]
    facts = TraceFacts(
        manifest=gathered["float32"][0],
        batches={precision: batches for precision, (_, batches) in gathered.items()},
        parameters={array.name: list(array.shape) for array in evidence.architecture.arrays},
    )
    facts.write(output / "trace.json")


def _gather(
    evidence: Evidence, precision: Precision, arrays: dict[str, np.ndarray], progress: Steps
) -> tuple[Manifest, list[Batch]]:
    """Trace in one precision: add to `arrays`, return the manifest and the batches."""
    train = evidence.train.model_copy(update={"precision": precision})
    classifier = create_ranked(evidence.framework, evidence.architecture, train)
    split = evidence.dataset.split("train")
    classifier.load_training_data(split.images[: evidence.examples], split.labels[: evidence.examples])
    backend.initialise(classifier, evidence.trace.seed)
    writer = _ArrayWriter(arrays, precision)
    writer.add_all("initial", classifier.state().weights)
    plans = list(evidence.plans())
    batches = [_batch(*batch) for plan in plans for batch in classifier.iter_batches(plan)]
    if precision == "float64":
        probe = classifier.probe(plans[0])
        writer.add_all("gradients", probe.gradients)
        writer.add("outputs", probe.outputs)
    losses = []
    for part in _after_one_step(plans):
        losses.append(classifier.train_epoch(part).loss)
        if len(losses) == 1 and precision == "float64":
            writer.add_all("weights after step 1", classifier.state().weights)
        progress(part.steps)
    writer.add("loss", np.concatenate(losses))
    writer.add_all("weights at the end", classifier.state().weights)
    writer.add("predictions", classifier.predict(evidence.dataset.split("validation").images[:_VALIDATION_EXAMPLES]))
    return Manifest.of(evidence.framework, classifier, evidence.settings()), batches


def _gather_alone(evidence: Evidence, threads: int, arrays: dict[str, np.ndarray]) -> None:
    """Take the same steps in float64 in this process alone, and add their losses and the final weights to `arrays`.

    `threads`: those of each rank; TensorFlow lets no process change their number.
    """
    train = evidence.train.model_copy(update={"precision": "float64", "world": 1, "threads": threads})
    classifier = create_ranked(evidence.framework, evidence.architecture, train)
    split = evidence.dataset.split("train")
    classifier.load_training_data(split.images[: evidence.examples], split.labels[: evidence.examples])
    backend.initialise(classifier, evidence.trace.seed)
    writer = _ArrayWriter(arrays, "alone")
    writer.add("loss", np.concatenate([classifier.train_epoch(plan).loss for plan in evidence.plans()]))
    writer.add_all("weights at the end", classifier.state().weights)


def _after_one_step(plans: Sequence[EpochPlan]) -> Iterator[EpochPlan]:
    """Yield the first step on its own, then the remaining steps of each plan."""
    yield plans[0].segment(0, 1)
    for number, plan in enumerate(plans):
        start = 0 if number else 1
        if start < plan.steps:
            yield plan.segment(start, plan.steps)


@dataclass(frozen=True)
class _ArrayWriter:
    arrays: dict[str, np.ndarray]
    precision: str

    def add(self, name: str, value: np.ndarray) -> None:
        self.arrays[f"{self.precision}/{name}"] = value

    def add_all(self, name: str, values: Mapping[str, np.ndarray]) -> None:
        for parameter, value in values.items():
            self.add(f"{name}/{parameter}", value)


def _batch(images: np.ndarray, labels: np.ndarray) -> Batch:
    digest = hashlib.blake2b(np.ascontiguousarray(images).tobytes(), digest_size=8)
    digest.update(np.ascontiguousarray(labels).tobytes())
    return Batch(examples=len(labels), dtype=str(images.dtype), digest=digest.hexdigest())


class Trace:
    """The evidence that `gather` wrote for one framework. Raises `UserError` if it is missing or cannot be read."""

    def __init__(self, framework: str, folder: Path) -> None:
        advice = f"python -m pipeline.trace framework={framework}"
        self.framework = framework
        try:
            self.facts = TraceFacts.read(folder / "trace.json", advice)
            self._arrays = np.load(folder / "arrays.npz", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no trace ({error}); {advice}") from error

    @property
    def manifest(self) -> Manifest:
        """Settings, versions and machine of the trace."""
        return self.facts.manifest

    def array(self, name: str) -> np.ndarray:
        """Return the array `<precision>/<what>`."""
        return np.asarray(self._arrays[name])

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return every array below `<precision>/<what>/`, by parameter."""
        return {key.removeprefix(f"{name}/"): self.array(key) for key in self._arrays if key.startswith(f"{name}/")}
