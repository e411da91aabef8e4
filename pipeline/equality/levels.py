"""Whether two traces are of the same function: level by level, in NumPy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ..config.schema.parity import ParityConfig
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.frameworks import find
from .fairness import differences, differing_sections, in_words
from .trace import Trace

_FLOOR: Final = (
    1e-6  # of the largest norm in a level: what is smaller is measured against this, as its own digits are noise
)


@dataclass(frozen=True)
class Level:
    """One thing that both sides must have in common."""

    name: str
    precision: str
    deviation: float
    """Largest relative deviation; 0 or infinity where only equality counts."""
    limit: float
    where: str
    """The array or step of the largest deviation; of the first difference where only equality counts."""
    look: str
    """Where such a difference comes from."""

    @property
    def passed(self) -> bool:
        """NaN does not pass."""
        return self.deviation <= self.limit

    @property
    def verdict(self) -> str:
        """One line: what differs, where, by how much."""
        if self.limit:
            sign = "<=" if self.passed else ">"
            return f"{self.where}: relative {self.deviation:.1e} {sign} {self.limit:.0e} ({self.precision})"
        return self.where


def compare_traces(one: Trace, other: Trace, limits: ParityConfig) -> Iterator[Level]:
    """Compare on every level, in the order in which a difference spreads; stop where the rest cannot be compared."""
    networks = "pipeline/models/<framework>/network.py"
    yield _settings(one, other)
    yield _batches(one, other)
    parameters = _parameters(one, other)
    yield parameters
    if one.facts.parameters != other.facts.parameters:
        return
    a, b = one.one("float64/outputs"), other.one("float64/outputs")
    outputs = {"outputs of the first batch": (a, b)}
    yield _deviation("outputs", "float64", outputs, limits.gradients, f"the layers in {networks}")
    yield _deviation(
        "gradients", "float64", _pairs(one, other, "float64/gradients"), limits.gradients, f"the loss, or {networks}"
    )
    for precision, limit in (("float64", limits.trajectory_float64), ("float32", limits.trajectory_float32)):
        yield _trajectory(one, other, precision, limit)
    yield _predictions(one, other)


def _settings(one: Trace, other: Trace) -> Level:
    differing = differing_sections(one.manifest, other.manifest)
    text = in_words(differing) or "identical"
    return Level("settings", "", float(np.inf) if differing else 0.0, 0.0, text, "how each side was traced")


def _batches(one: Trace, other: Trace) -> Level:
    look = "_batch in pipeline/models/<framework>/classifier.py, or pipeline/data/plan.py"
    count = 0
    for precision, batches in one.facts.batches.items():
        others = other.facts.batches[precision]
        for step, (a, b) in enumerate(zip(batches, others, strict=False)):
            if a != b:
                what, (x, y) = next(iter(differences(a.model_dump(), b.model_dump()).items()))
                where = f"step {step} ({precision}): {what} {x} and {y}"
                return Level("batches", precision, float(np.inf), 0.0, where, look)
        if len(batches) != len(others):
            where = f"{len(batches)} and {len(others)} steps ({precision})"
            return Level("batches", precision, float(np.inf), 0.0, where, look)
        count += len(batches)
    return Level("batches", "", 0.0, 0.0, f"{count} batches identical to the last bit", look)


def _parameters(one: Trace, other: Trace) -> Level:
    look = "pipeline/models/architecture.py, or set_weights in pipeline/models/<framework>/classifier.py"
    a, b = one.facts.parameters, other.facts.parameters
    for name in {**a, **b}:
        if a.get(name) != b.get(name):
            return Level("parameters", "", float(np.inf), 0.0, f"{name}: {a.get(name)} and {b.get(name)}", look)
    count = sum(int(np.prod(shape)) for shape in a.values())
    for precision in one.facts.batches:
        for name, (x, y) in _pairs(one, other, f"{precision}/initial").items():
            if x.dtype != y.dtype or x.tobytes() != y.tobytes():
                what = f"{np.count_nonzero(x != y)} of {x.size} initial values differ ({precision})"
                return Level("parameters", precision, float(np.inf), 0.0, f"{name}: {what}", look)
    return Level("parameters", "", 0.0, 0.0, f"{len(a)} arrays, {count:,} values identical to the last bit", look)


def _trajectory(one: Trace, other: Trace, precision: str, limit: float) -> Level:
    look = "the optimiser, clipping, or running values in pipeline/models/<framework>"
    if precision == "float32":
        look = (
            "kinks (ReLU, max pooling) and the learning rate: where float64 passes, the programs are the same, and "
            "rounding parts their paths; parity.trajectory_float32 is the limit"
        )
    name = f"trajectory {precision}"
    x, y = one.one(f"{precision}/loss"), other.one(f"{precision}/loss")
    if x.shape != y.shape:
        where = f"loss: {len(x)} and {len(y)} steps"
        return Level(name, precision, float(np.inf), limit, where, look)
    losses = loss_deviations(x, y)
    early = _pairs(one, other, f"{precision}/weights after step 1", " after step 1")
    step = int(np.argmax(np.where(np.isnan(losses), np.inf, losses)))
    candidates = [
        *([_deviation(name, precision, early, limit, look)] if early else []),
        Level(name, precision, float(losses[step]), limit, f"loss of step {step}", look),
        _deviation(name, precision, _pairs(one, other, f"{precision}/weights at the end", " at the end"), limit, look),
    ]
    failed = [level for level in candidates if not level.passed]
    return failed[0] if failed else max(candidates, key=lambda level: level.deviation)


def loss_deviations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of every step, relative to the larger of the two losses: float64 (steps,)."""
    return np.asarray(np.abs(x - y) / np.maximum(np.maximum(np.abs(x), np.abs(y)), np.finfo(np.float64).tiny))


def _predictions(one: Trace, other: Trace) -> Level:
    look = "predict in pipeline/models/<framework>/classifier.py: inference differs from training"
    name = "float64/predictions"
    x, y = one.one(name), other.one(name)
    if x.shape != y.shape:
        return Level("predictions", "float64", float(np.inf), 0.0, f"{x.shape} and {y.shape}", look)
    wrong = np.flatnonzero(x.argmax(axis=1) != y.argmax(axis=1))
    same = f"{len(x)} of {len(x)} predictions of the final weights are the same"
    where = f"{len(wrong)} of {len(x)} predictions of the final weights" if len(wrong) else same
    return Level("predictions", "float64", float(np.inf) if len(wrong) else 0.0, 0.0, where, look)


def _pairs(one: Trace, other: Trace, name: str, suffix: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    a, b = one.all(name), other.all(name)
    return {f"{key}{suffix}": (a[key], b[key]) for key in a}


def _deviation(
    name: str, precision: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], limit: float, look: str
) -> Level:
    """The largest 2-norm of an array's difference, relative to the norm of its layer: a bias may be next to nothing."""
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
    """What differs first, and where to look; None where nothing does."""
    failed = next((level for level in levels if not level.passed), None)
    if failed is None:
        return None
    return f"{failed.name} differ first at {failed.verdict}\nlook at {failed.look}"


class LevelResult(BaseModel):
    """A `Level` in `parity.json`."""

    model_config = ConfigDict(frozen=True)

    arm: str
    """The framework that is compared with the reference."""
    name: str
    precision: str
    deviation: float | None
    """None: infinite, which JSON has not."""
    limit: float
    where: str
    look: str
    passed: bool
    verdict: str


class ParityResult(BaseModel):
    """Whether every arm computes what the reference computes: `parity.json`."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    reason: str | None
    """What differs first, and where to look; None where nothing does."""
    reference: str
    levels: tuple[LevelResult, ...]

    @classmethod
    def of(cls, reference: str, levels: Mapping[str, Sequence[Level]]) -> "ParityResult":
        """Sum up; `levels`: by arm, of which there is at least one."""
        reasons = [
            f"{f'{find(arm).style.title}: ' * (len(levels) > 1)}{text}"
            for arm, of_arm in levels.items()
            if (text := reason(of_arm))
        ]
        results = tuple(_result(arm, level) for arm, of_arm in levels.items() for level in of_arm)
        return cls(passed=not reasons, reason="\n".join(reasons) or None, reference=reference, levels=results)

    @classmethod
    def read(cls, path: Path) -> "ParityResult":
        """Read what `write` wrote. Raises `UserError` naming the file."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise UserError(f"{path}: cannot be read ({error.errors()[0]['msg']}); run `dvc repro parity`") from error

    @staticmethod
    def traced_settings(path: Path) -> Mapping[str, Mapping[str, Any]]:
        """Return the settings under which the traces were made, from `manifest.json` beside `parity.json`."""
        settings: Mapping[str, Mapping[str, Any]] = read_json(path)["settings"]
        return settings

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump())

    def of_arm(self, arm: str) -> "ParityResult":
        """Return the levels of one arm."""
        return self.model_copy(update={"levels": tuple(level for level in self.levels if level.arm == arm)})


def _result(arm: str, level: Level) -> LevelResult:
    finite = bool(np.isfinite(level.deviation))
    facts = asdict(level) | {"deviation": level.deviation if finite else None}
    return LevelResult(arm=arm, passed=level.passed, verdict=level.verdict, **facts)
