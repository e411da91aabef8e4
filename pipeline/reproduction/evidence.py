"""What two trainings are compared by, bit for bit: the loss of every step, weights, outputs on the test split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from ..tracking import lookup
from ..tracking.lookup import RunRecord

_SERIES = ("train/step_loss", "validation/loss", "validation/accuracy")


@dataclass(frozen=True)
class Evidence:
    """The numbers of one training, as its MLflow run has them; what it lacks is empty."""

    series: Mapping[str, Sequence[tuple[int, float]]]
    """(step, value) of the metrics that training logs, by name."""
    digest: str
    """Of `weights.safetensors`."""
    weights: Mapping[str, np.ndarray]
    """By canonical name."""
    logits: np.ndarray | None
    """Outputs on the test split, float32 (N, classes)."""

    @classmethod
    def of(cls, client: Any, run: RunRecord, folder: Path) -> "Evidence":
        """Fetch the evidence of a run into `folder`. Raises what MLflow raises."""
        path = lookup.model_files(client, run, "weights.safetensors", folder / run.id / "model")
        logits = lookup.artifact(client, run.id, "evaluate/predictions.npz", folder / run.id)
        weights = safetensors.load(path.read_bytes()) if path else {}
        outputs = None
        if logits:
            with np.load(logits, allow_pickle=False) as file:
                outputs = file["logits"]
        series = {name: lookup.series(client, run.id, name) for name in _SERIES}
        return cls(series, run.tags.get("weights.digest", ""), weights, outputs)


@dataclass(frozen=True)
class Equality:
    """The result of comparing two trainings."""

    difference: str
    """The first difference, in the order of training; empty: none."""
    compared: tuple[str, ...]
    """What both have, and was compared."""
    missing: tuple[str, ...]
    """What the earlier one lacks, and was not compared."""

    @property
    def same(self) -> bool:
        """Whether the weights, or the outputs of the network, were compared, and nothing differs."""
        return not self.difference and any(word in each for each in self.compared for word in ("weights", "logits"))


def compare(then: Evidence, now: Evidence) -> Equality:
    """Compare two trainings in the order in which they came about."""
    compared: list[str] = []
    missing: list[str] = []
    differing: list[str] = []
    for name in _SERIES:
        if not then.series[name]:
            missing.append(name)
            continue
        compared.append(f"{len(then.series[name]):,} x {name}")
        differing += _of_series(name, then.series[name], now.series[name])
    if then.weights and now.weights:
        count = sum(value.size for value in then.weights.values())
        compared.append(f"weights ({len(then.weights)} arrays, {count:,} numbers)")
        differing += _of_weights(then.weights, now.weights)
    elif then.digest and now.digest:
        compared.append("digest of the weights")
        differing += ["weights: another digest"] if then.digest != now.digest else []
    else:
        missing.append("weights")
    if then.logits is not None and now.logits is not None:
        compared.append(f"test logits ({' x '.join(f'{n:,}' for n in then.logits.shape)})")
        differing += _of_logits(then.logits, now.logits)
    else:
        missing.append("test logits")
    return Equality(differing[0] if differing else "", tuple(compared), tuple(missing))


def _of_series(name: str, then: Sequence[tuple[int, float]], now: Sequence[tuple[int, float]]) -> Iterator[str]:
    for (step, before), (step_now, after) in zip(then, now, strict=False):
        if step != step_now or _bits(before) != _bits(after):
            yield f"{name} at step {min(step, step_now)}: {before!r} then, {after!r} now"
            return
    if len(then) != len(now):
        yield f"{name}: {len(then):,} points then, {len(now):,} now"


def _of_weights(then: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name in then:
        if name not in now:
            yield f"weights of {name}: not there now"
        elif then[name].shape != now[name].shape or then[name].dtype != now[name].dtype:
            yield f"weights of {name}: {then[name].dtype} {then[name].shape} then, {now[name].dtype} {now[name].shape}"
        elif then[name].tobytes() != now[name].tobytes():
            difference = np.abs(then[name].astype(np.float64) - now[name].astype(np.float64))
            count = np.count_nonzero(then[name] != now[name])
            yield f"weights of {name}: {count:,} of {then[name].size:,} differ, by {difference.max():.3g} at most"
    yield from (f"weights of {name}: only now" for name in now if name not in then)


def _of_logits(then: np.ndarray, now: np.ndarray) -> Iterator[str]:
    if then.shape != now.shape:
        yield f"test logits: {then.shape} then, {now.shape} now"
    elif then.tobytes() != now.tobytes():
        rows = np.flatnonzero((then != now).any(axis=tuple(range(1, then.ndim))))
        first = f"first of test image {rows[0]}" if len(rows) else "in the sign of a zero"
        yield f"test logits: {len(rows):,} of {len(then):,} images differ, {first}"


def _bits(value: float) -> bytes:
    return np.float64(value).tobytes()
