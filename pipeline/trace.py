"""Stage `trace`: what one framework computes, step by step, as evidence for `parity`.

`python -m pipeline.trace framework=tensorflow [overrides] [--output DIR]`: files go to `results/<framework>/trace`.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .config import TraceConfig, TrainConfig
from .data.dataset import Dataset
from .data.obtain import PREPARED, obtain
from .data.plan import EpochPlan, draw_epoch
from .entry import end_on_sigterm, main_root, parse_call, stage_sections, user_errors
from .fairness import sides
from .models import classifier as doors
from .models.architecture import Architecture
from .progress import Steps, steps

SECTIONS = stage_sections("trace", "framework", "model", "train", "trace")
PRECISIONS = ("float64", "float32")
_HELD_OUT = 500  # examples of the validation split that the final weights are evaluated on


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
            "data": {**self.dataset.facts["source"], "fingerprint": self.dataset.fingerprint},
            "image_shape": list(self.architecture.image_shape),
            "classes": self.architecture.classes,
        }


def gather(evidence: Evidence, output: Path) -> None:
    """Write `trace.json` and `arrays.npz` (by `<precision>/<what>`) to `output`."""
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"settings": evidence.settings()}
    arrays: dict[str, np.ndarray] = {}
    with steps(f"trace {evidence.framework}", len(PRECISIONS) * evidence.trace.steps, "steps") as progress:
        for precision in PRECISIONS:
            facts |= _gather(evidence, precision, arrays, facts.setdefault("batches", {}), progress)
    np.savez(output / "arrays.npz", **arrays)  # type: ignore[arg-type]
    facts["seconds"] = round(time.perf_counter() - began, 2)
    (output / "trace.json").write_text(json.dumps(facts, indent=2) + "\n")


def _gather(
    evidence: Evidence,
    precision: str,
    arrays: dict[str, np.ndarray],
    batches: dict[str, Sequence[Mapping[str, Any]]],
    progress: Steps,
) -> dict[str, Any]:
    train = evidence.train.model_copy(update={"precision": precision})
    classifier = doors.create(evidence.framework, evidence.architecture, train)
    split = evidence.dataset.split("train")
    classifier.attach(split.images[: evidence.examples], split.labels[: evidence.examples])
    doors.initialise(classifier, evidence.trace.seed)
    keep = _Keeper(arrays, precision)
    keep.all("initial", classifier.state().weights)
    plans = list(evidence.plans())
    batches[precision] = [_digest(*batch) for plan in plans for batch in classifier.seen(plan)]
    if precision == "float64":
        probe = classifier.probe(plans[0])
        keep.all("gradients", probe.gradients)
        keep.one("outputs", probe.outputs)
    losses = []
    for number, plan in enumerate(plans):
        cut = 1 if number == 0 else 0
        for part in (plan.segment(0, cut), plan.segment(cut, plan.steps)):
            if not part.steps:
                continue
            losses.append(classifier.train_epoch(part).loss)
            if len(losses) == 1 and precision == "float64":
                keep.all("weights after step 1", classifier.state().weights)
            progress(part.steps)
    keep.one("loss", np.concatenate(losses))
    keep.all("weights at the end", classifier.state().weights)
    keep.one("predictions", classifier.predict(evidence.dataset.split("validation").images[:_HELD_OUT]))
    parameters = {array.name: list(array.shape) for array in evidence.architecture.arrays}
    device = classifier.device
    own = sides(evidence.framework, classifier.execution, device=device.name, threads=device.threads)
    return own | {"parameters": parameters}


@dataclass(frozen=True)
class _Keeper:
    arrays: dict[str, np.ndarray]
    precision: str

    def one(self, name: str, value: np.ndarray) -> None:
        self.arrays[f"{self.precision}/{name}"] = value

    def all(self, name: str, values: Mapping[str, np.ndarray]) -> None:
        for parameter, value in values.items():
            self.one(f"{name}/{parameter}", value)


def _digest(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    digest = hashlib.blake2b(np.ascontiguousarray(images).tobytes(), digest_size=8)
    digest.update(np.ascontiguousarray(labels).tobytes())
    return {"examples": len(labels), "dtype": str(images.dtype), "digest": digest.hexdigest()}


@user_errors
def main(arguments: Sequence[str]) -> None:
    """The DVC stage (`--params`), or a trace under any configuration."""
    end_on_sigterm()
    call = parse_call("trace", arguments)
    config = call.config
    dataset = Dataset.open(PREPARED) if call.snapshot else obtain(config.data, main_root())
    architecture = Architecture.of(config.model, dataset)
    evidence = Evidence(config.framework, architecture, config.train, config.trace, dataset)
    gather(evidence, call.output or Path("results") / config.framework / "trace")


if __name__ == "__main__":
    main(sys.argv[1:])
