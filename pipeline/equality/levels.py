"""Compare two traces level by level, in NumPy: do they come from the same function?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..config.schema.parity import ParityConfig
from ..core.files import read_json
from ..core.frameworks import find
from ..core.records import Record
from .fairness import differences, differing_sections, in_words
from .trace import Trace

_FLOOR: Final = 1e-6
"""Share of a level's largest norm: deviations of smaller arrays are relative to this, as their own digits are noise."""


@dataclass(frozen=True)
class Level:
    """The outcome of one comparison of two traces."""

    name: str
    precision: str
    """`float64` or `float32`; empty if the comparison is of neither."""
    deviation: float
    """Largest relative deviation; 0 or infinity if only equality counts."""
    limit: float
    """Largest deviation that passes; 0 if only equality counts."""
    where: str
    """The array or step of the largest deviation, or of the first difference if only equality counts."""
    look: str
    """Where to look for the cause of a difference."""

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the limit; NaN is not."""
        return self.deviation <= self.limit

    @property
    def verdict(self) -> str:
        """What differs, where and by how much, in one line."""
        if self.limit:
            sign = "<=" if self.passed else ">"
            return f"{self.where}: relative {self.deviation:.1e} {sign} {self.limit:.0e} ({self.precision})"
        return self.where


def compare_traces(reference: Trace, arm: Trace, limits: ParityConfig) -> Iterator[Level]:
    """Yield every level, in the order in which a difference spreads from one to the next.

    Stop after the level `parameters` if the networks have different parameters: the rest cannot be compared.
    """
    networks = "pipeline/models/<framework>/network.py"
    yield _settings(reference, arm)
    yield _batches(reference, arm)
    yield _parameters(reference, arm)
    if reference.facts.parameters != arm.facts.parameters:
        return
    a, b = reference.array("float64/outputs"), arm.array("float64/outputs")
    outputs = {"outputs of the first batch": (a, b)}
    yield _deviation("outputs", "float64", outputs, limits.gradients, f"the layers in {networks}")
    gradients = _pairs(reference, arm, "float64/gradients")
    yield _deviation("gradients", "float64", gradients, limits.gradients, f"the loss, or {networks}")
    for precision, limit in (("float64", limits.trajectory_float64), ("float32", limits.trajectory_float32)):
        yield _trajectory(reference, arm, precision, limit)
    if all(trace.manifest.world > 1 for trace in (reference, arm)):
        yield _ranks("ranks", arm, arm, limits.ranks)
        yield _ranks("ranks reference", reference, reference, limits.ranks)
        yield _ranks("ranks crossed", arm, reference, limits.ranks)
    yield _predictions(reference, arm)


def _settings(reference: Trace, arm: Trace) -> Level:
    differing = differing_sections(reference.manifest, arm.manifest)
    text = in_words(differing) or "identical"
    return Level("settings", "", float(np.inf) if differing else 0.0, 0.0, text, "how each framework was traced")


def _batches(reference: Trace, arm: Trace) -> Level:
    look = "_batch in pipeline/models/<framework>/classifier.py, or pipeline/data/plan.py"
    count = 0
    for precision, batches in reference.facts.batches.items():
        arm_batches = arm.facts.batches[precision]
        for step, (a, b) in enumerate(zip(batches, arm_batches, strict=False)):
            if a != b:
                what, (x, y) = next(iter(differences(a.model_dump(), b.model_dump()).items()))
                where = f"step {step} ({precision}): {what} {x} and {y}"
                return Level("batches", precision, float(np.inf), 0.0, where, look)
        if len(batches) != len(arm_batches):
            where = f"{len(batches)} and {len(arm_batches)} steps ({precision})"
            return Level("batches", precision, float(np.inf), 0.0, where, look)
        count += len(batches)
    return Level("batches", "", 0.0, 0.0, f"{count} batches identical to the last bit", look)


def _parameters(reference: Trace, arm: Trace) -> Level:
    look = "pipeline/models/architecture.py, or set_weights in pipeline/models/<framework>/classifier.py"
    a, b = reference.facts.parameters, arm.facts.parameters
    for name in {**a, **b}:
        if a.get(name) != b.get(name):
            return Level("parameters", "", float(np.inf), 0.0, f"{name}: {a.get(name)} and {b.get(name)}", look)
    count = sum(int(np.prod(shape)) for shape in a.values())
    for precision in reference.facts.batches:
        for name, (x, y) in _pairs(reference, arm, f"{precision}/initial").items():
            if x.dtype != y.dtype or x.tobytes() != y.tobytes():
                what = f"{np.count_nonzero(x != y)} of {x.size} initial values differ ({precision})"
                return Level("parameters", precision, float(np.inf), 0.0, f"{name}: {what}", look)
    return Level("parameters", "", 0.0, 0.0, f"{len(a)} arrays, {count:,} values identical to the last bit", look)


def _trajectory(reference: Trace, arm: Trace, precision: str, limit: float) -> Level:
    look = "the optimiser, clipping, or running values in pipeline/models/<framework>"
    if precision == "float32":
        look = (
            "kinks (ReLU, max pooling) and the learning rate: if float64 passes, the programs are the same, and "
            "rounding alone makes their paths diverge; parity.trajectory_float32 is the limit"
        )
    name = f"trajectory {precision}"
    x, y = reference.array(f"{precision}/loss"), arm.array(f"{precision}/loss")
    if x.shape != y.shape:
        where = f"loss: {len(x)} and {len(y)} steps"
        return Level(name, precision, float(np.inf), limit, where, look)
    losses = loss_deviations(x, y)
    early = _pairs(reference, arm, f"{precision}/weights after step 1", " after step 1")
    step = int(np.argmax(np.where(np.isnan(losses), np.inf, losses)))
    candidates = [
        *([_deviation(name, precision, early, limit, look)] if early else []),
        Level(name, precision, float(losses[step]), limit, f"loss of step {step}", look),
        _deviation(
            name, precision, _pairs(reference, arm, f"{precision}/weights at the end", " at the end"), limit, look
        ),
    ]
    failed = [level for level in candidates if not level.passed]
    return failed[0] if failed else max(candidates, key=lambda level: level.deviation)


def _ranks(name: str, together: Trace, alone: Trace, limit: float) -> Level:
    """Compare what all ranks of one trace computed with what one process of the same or of another trace computed."""
    look = "pipeline/models/share.py and peers.py in pipeline/models/<framework>"
    end = "weights at the end"
    pairs = {
        f"{key} at the end": (value, alone.array(f"alone/{end}/{key}"))
        for key, value in together.arrays(f"float64/{end}").items()
    }
    losses = loss_deviations(together.array("float64/loss"), alone.array("alone/loss"))
    step = int(np.argmax(np.where(np.isnan(losses), np.inf, losses)))
    candidates = [
        Level(name, "float64", float(losses[step]), limit, f"loss of step {step}", look),
        _deviation(name, "float64", pairs, limit, look),
    ]
    failed = [level for level in candidates if not level.passed]
    return failed[0] if failed else max(candidates, key=lambda level: level.deviation)


def loss_deviations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return |x - y| of every step relative to the larger of the two losses, float64 (steps,)."""
    return np.asarray(np.abs(x - y) / np.maximum(np.maximum(np.abs(x), np.abs(y)), np.finfo(np.float64).tiny))


def _predictions(reference: Trace, arm: Trace) -> Level:
    look = "predict in pipeline/models/<framework>/classifier.py: inference differs from training"
    name = "float64/predictions"
    x, y = reference.array(name), arm.array(name)
    if x.shape != y.shape:
        return Level("predictions", "float64", float(np.inf), 0.0, f"{x.shape} and {y.shape}", look)
    differing = np.flatnonzero(x.argmax(axis=1) != y.argmax(axis=1))
    same = f"{len(x)} of {len(x)} predictions of the final weights are the same"
    where = f"{len(differing)} of {len(x)} predictions of the final weights" if len(differing) else same
    return Level("predictions", "float64", float(np.inf) if len(differing) else 0.0, 0.0, where, look)


def _pairs(reference: Trace, arm: Trace, name: str, suffix: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    a, b = reference.arrays(name), arm.arrays(name)
    return {f"{key}{suffix}": (a[key], b[key]) for key in a}


def _deviation(
    name: str, precision: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], limit: float, look: str
) -> Level:
    """Compare arrays by the 2-norm of their difference, relative to the norm of their layer.

    An array's own norm would not do: a bias may be close to 0.
    """
    squares: dict[str, float] = {}
    for key, (a, b) in pairs.items():
        layer = key.split("/")[0]
        squares[layer] = squares.get(layer, 0.0) + max(_norm(a), _norm(b)) ** 2
    floor = _FLOOR * max(squares.values()) ** 0.5 or 1.0
    deviations = {
        key: _norm(a.astype(np.float64) - b) / max(squares[key.split("/")[0]] ** 0.5, floor)
        if a.shape == b.shape
        else float(np.inf)
        for key, (a, b) in pairs.items()
    }
    failed = [key for key, value in deviations.items() if not value <= limit]
    where = failed[0] if failed else max(deviations, key=lambda key: deviations[key])
    return Level(name, precision, deviations[where], limit, where, look)


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64).ravel()))


def reason(levels: Sequence[Level]) -> str | None:
    """Return what differs first, and where to look for its cause; None if every level passed."""
    failed = next((level for level in levels if not level.passed), None)
    if failed is None:
        return None
    return f"{failed.name} differ first at {failed.verdict}\nlook at {failed.look}"


class LevelResult(Record):
    """A `Level` in `parity.json`."""

    arm: str
    """Name of the framework that was compared with the reference."""
    name: str
    precision: str
    deviation: float | None
    """None if it is infinite or NaN, which JSON lacks."""
    limit: float
    where: str
    look: str
    passed: bool
    verdict: str


class ParityResult(Record):
    """The content of `parity.json`: whether every arm computes what the reference computes."""

    passed: bool
    reason: str | None
    """What differs first in each arm, and where to look for its cause; None if nothing differs."""
    reference: str
    """Name of the framework that the others were compared with."""
    levels: tuple[LevelResult, ...]
    """All levels of all arms."""

    @classmethod
    def of(cls, reference: str, levels: Mapping[str, Sequence[Level]]) -> "ParityResult":
        """Collect the levels of each arm; `levels` holds at least one arm."""
        reasons = [
            f"{f'{find(arm).style.title}: ' * (len(levels) > 1)}{text}"
            for arm, of_arm in levels.items()
            if (text := reason(of_arm))
        ]
        results = tuple(_result(arm, level) for arm, of_arm in levels.items() for level in of_arm)
        return cls(passed=not reasons, reason="\n".join(reasons) or None, reference=reference, levels=results)

    @staticmethod
    def traced_settings(path: Path) -> Mapping[str, Mapping[str, Any]]:
        """Read the settings under which the traces were made, by section, from the `manifest.json` of `parity`."""
        settings: Mapping[str, Mapping[str, Any]] = read_json(path)["settings"]
        return settings

    def of_arm(self, arm: str) -> "ParityResult":
        """Return the result with the levels of one arm only; `passed` and `reason` stay those of all arms."""
        return self.model_copy(update={"levels": tuple(level for level in self.levels if level.arm == arm)})


def _result(arm: str, level: Level) -> LevelResult:
    finite = bool(np.isfinite(level.deviation))
    facts = asdict(level) | {"deviation": level.deviation if finite else None}
    return LevelResult(arm=arm, passed=level.passed, verdict=level.verdict, **facts)
