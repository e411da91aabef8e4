"""What one framework computes, step by step, as evidence: gathered by `trace`, compared by `parity`."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ..config.schema.trace import TraceConfig
from ..config.schema.train import TrainConfig
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.progress import Steps, steps
from ..data.dataset import Dataset
from ..data.plan import EpochPlan, draw_epoch
from ..models import backend
from ..models.architecture import Architecture
from ..models.manifest import Manifest

Precision = Literal["float64", "float32"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float64", "float32")
_HELD_OUT: Final = 500  # examples of the validation split that the final weights are evaluated on


class Batch(BaseModel):
    """One batch as the network took it, read back from the device."""

    model_config = ConfigDict(frozen=True)

    examples: int
    dtype: str
    digest: str
    """16 hexadecimal digits over images and labels."""


class TraceFacts(BaseModel):
    """`trace.json`: everything but the arrays. The same evidence gives the same bytes."""

    model_config = ConfigDict(frozen=True)

    manifest: Manifest
    batches: dict[Precision, list[Batch]]
    parameters: dict[str, list[int]]
    """Shapes of all arrays of the network, by name."""


@dataclass(frozen=True)
class Evidence:
    """What is traced: the same in both frameworks."""

    framework: str
    architecture: Architecture
    train: TrainConfig
    trace: TraceConfig
    dataset: Dataset

    @property
    def examples(self) -> int:
        """How many of the training split: two epochs of them make at least `trace.steps`, each with a partial batch."""
        size = self.trace.batch_size
        wanted = (self.trace.steps // 2 + 2) * size + max(size // 3, 1)
        count = min(wanted, len(self.dataset.split("train").labels))
        return count - 1 if count % size == 0 and count > 1 else count

    def plans(self) -> Iterator[EpochPlan]:
        """The epochs, the last one cut at `trace.steps`."""
        left, epoch = self.trace.steps, 0
        per_epoch = -(-self.examples // self.trace.batch_size)
        train = self.train.model_copy(update={"epochs": -(-left // per_epoch), "batch_size": self.trace.batch_size})
        while left:
            plan = draw_epoch(train, examples=self.examples, seed=self.trace.seed, epoch=epoch)
            yield plan.segment(0, min(left, plan.steps))
            left, epoch = left - min(left, plan.steps), epoch + 1

    def settings(self) -> dict[str, Any]:
        """Everything that the two sides must have in common."""
        return {
            "model": self.architecture.model.model_dump(),
            "train": self.train.model_dump(),
            "trace": self.trace.model_dump(),
            "data": self.dataset.identity,
            "image_shape": list(self.architecture.image_shape),
            "classes": self.architecture.classes,
        }


def gather(evidence: Evidence, output: Path) -> None:
    """Write `trace.json` and `arrays.npz` (by `<precision>/<what>`) to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    with steps(f"trace {evidence.framework}", len(PRECISIONS) * evidence.trace.steps, "steps") as progress:
        gathered = {precision: _gather(evidence, precision, arrays, progress) for precision in PRECISIONS}
    np.savez(output / "arrays.npz", **arrays)  # type: ignore[arg-type]
    facts = TraceFacts(
        manifest=gathered["float32"][0],
        batches={precision: batches for precision, (_, batches) in gathered.items()},
        parameters={array.name: list(array.shape) for array in evidence.architecture.arrays},
    )
    write_json(output / "trace.json", facts.model_dump())


def _gather(
    evidence: Evidence, precision: Precision, arrays: dict[str, np.ndarray], progress: Steps
) -> tuple[Manifest, list[Batch]]:
    train = evidence.train.model_copy(update={"precision": precision})
    classifier = backend.create(evidence.framework, evidence.architecture, train)
    split = evidence.dataset.split("train")
    classifier.load_training_data(split.images[: evidence.examples], split.labels[: evidence.examples])
    backend.initialise(classifier, evidence.trace.seed)
    keep = _Keeper(arrays, precision)
    keep.all("initial", classifier.state().weights)
    plans = list(evidence.plans())
    batches = [_batch(*batch) for plan in plans for batch in classifier.iter_batches(plan)]
    if precision == "float64":
        probe = classifier.probe(plans[0])
        keep.all("gradients", probe.gradients)
        keep.one("outputs", probe.outputs)
    losses = []
    for part in _after_one_step(plans):
        losses.append(classifier.train_epoch(part).loss)
        if len(losses) == 1 and precision == "float64":
            keep.all("weights after step 1", classifier.state().weights)
        progress(part.steps)
    keep.one("loss", np.concatenate(losses))
    keep.all("weights at the end", classifier.state().weights)
    keep.one("predictions", classifier.predict(evidence.dataset.split("validation").images[:_HELD_OUT]))
    return Manifest.of(evidence.framework, classifier, evidence.settings()), batches


def _after_one_step(plans: Sequence[EpochPlan]) -> Iterator[EpochPlan]:
    """Yield the first step, then what is left of each plan."""
    yield plans[0].segment(0, 1)
    for number, plan in enumerate(plans):
        start = 0 if number else 1
        if start < plan.steps:
            yield plan.segment(start, plan.steps)


@dataclass(frozen=True)
class _Keeper:
    arrays: dict[str, np.ndarray]
    precision: str

    def one(self, name: str, value: np.ndarray) -> None:
        self.arrays[f"{self.precision}/{name}"] = value

    def all(self, name: str, values: Mapping[str, np.ndarray]) -> None:
        for parameter, value in values.items():
            self.one(f"{name}/{parameter}", value)


def _batch(images: np.ndarray, labels: np.ndarray) -> Batch:
    digest = hashlib.blake2b(np.ascontiguousarray(images).tobytes(), digest_size=8)
    digest.update(np.ascontiguousarray(labels).tobytes())
    return Batch(examples=len(labels), dtype=str(images.dtype), digest=digest.hexdigest())


class Trace:
    """What `gather` left of one framework. Raises `UserError` where it is not there."""

    def __init__(self, framework: str, folder: Path) -> None:
        advice = f"python -m pipeline.trace framework={framework}"
        self.framework = framework
        try:
            self.facts = TraceFacts.model_validate(read_json(folder / "trace.json", advice))
            self._arrays = np.load(folder / "arrays.npz", allow_pickle=False)
        except (OSError, ValueError, ValidationError) as error:
            raise UserError(f"{folder}: no trace ({error}); {advice}") from error

    @property
    def manifest(self) -> Manifest:
        """What was asked, and on what it was done."""
        return self.facts.manifest

    def one(self, name: str) -> np.ndarray:
        """Return the array `<precision>/<what>`."""
        return np.asarray(self._arrays[name])

    def all(self, name: str) -> dict[str, np.ndarray]:
        """Return every array below `<precision>/<what>/`, by parameter."""
        return {key.removeprefix(f"{name}/"): self.one(key) for key in self._arrays if key.startswith(f"{name}/")}
