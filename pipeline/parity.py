"""Stage `parity`: do both frameworks compute the same function? Judged in NumPy, from what `trace` wrote.

`python -m pipeline.parity [--output DIR]`: reads `results/<framework>/trace`, writes `results/parity`.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .config import ParityConfig, TrackingConfig
from .entry import main_root, stage
from .errors import ParityError, UserError
from .fairness import differences, told
from .figures.curves import deviations
from .figures.style import save
from .progress import console

FRAMEWORKS = ("tensorflow", "pytorch")
_SIDE = ("settings", "machine", "framework")
_FLOOR = 1e-6  # of the largest norm in a level: what is smaller is measured against this, as its own digits are noise


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


class Trace:
    """What `trace` left of one framework. Raises `UserError` where it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.facts = json.loads((folder / "trace.json").read_text())
            self._arrays = np.load(folder / "arrays.npz")
        except (OSError, ValueError) as error:
            framework = folder.parent.name
            raise UserError(f"{folder}: no trace ({error}); python -m pipeline.trace framework={framework}") from error

    def one(self, name: str) -> np.ndarray:
        """`<precision>/<what>`."""
        return np.asarray(self._arrays[name])

    def all(self, name: str) -> dict[str, np.ndarray]:
        """Every array below `<precision>/<what>/`, by parameter."""
        return {key.removeprefix(f"{name}/"): self.one(key) for key in self._arrays if key.startswith(f"{name}/")}


def judge(one: Trace, other: Trace, limits: ParityConfig) -> Iterator[Level]:
    """Every level in the order in which a difference spreads; stops where the rest could not be compared."""
    networks = "pipeline/models/<framework>/network.py"
    yield _settings(one, other)
    yield _batches(one, other)
    parameters = _parameters(one, other)
    yield parameters
    if one.facts["parameters"] != other.facts["parameters"]:
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
    found = differences(one.facts["settings"], other.facts["settings"])
    found |= differences(one.facts["machine"], other.facts["machine"], "machine.")
    text = told(found) or "identical"
    return Level("settings", "", float(np.inf) if found else 0.0, 0.0, text, "how each side was traced")


def _batches(one: Trace, other: Trace) -> Level:
    look = "_batch in pipeline/models/<framework>/classifier.py, or pipeline/data/plan.py"
    count = 0
    for precision, found in one.facts["batches"].items():
        others = other.facts["batches"][precision]
        for step, (a, b) in enumerate(zip(found, others, strict=False)):
            if a != b:
                what = next(key for key in a if a[key] != b[key])
                where = f"step {step} ({precision}): {what} {a[what]} and {b[what]}"
                return Level("batches", precision, float(np.inf), 0.0, where, look)
        if len(found) != len(others):
            where = f"{len(found)} and {len(others)} steps ({precision})"
            return Level("batches", precision, float(np.inf), 0.0, where, look)
        count += len(found)
    return Level("batches", "", 0.0, 0.0, f"{count} batches identical to the last bit", look)


def _parameters(one: Trace, other: Trace) -> Level:
    look = "pipeline/models/architecture.py, or set_weights in pipeline/models/<framework>/classifier.py"
    a, b = one.facts["parameters"], other.facts["parameters"]
    for name in {**a, **b}:
        if a.get(name) != b.get(name):
            return Level("parameters", "", float(np.inf), 0.0, f"{name}: {a.get(name)} and {b.get(name)}", look)
    count = sum(int(np.prod(shape)) for shape in a.values())
    for precision in one.facts["batches"]:
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
    found = {
        key: _norm(a.astype(np.float64) - b) / max(squares[key.split("/")[0]] ** 0.5, floor)
        if a.shape == b.shape
        else float(np.inf)
        for key, (a, b) in pairs.items()
    }
    failed = [key for key, value in found.items() if not value <= limit]
    where = failed[0] if failed else max(found, key=lambda key: found[key])
    return Level(name, precision, found[where], limit, where, look)


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64).ravel()))


def reason(levels: Sequence[Level]) -> str | None:
    """What differs first, and where to look; None where nothing does."""
    failed = next((level for level in levels if not level.passed), None)
    if failed is None:
        return None
    return f"{failed.name} differ first at {failed.verdict}\nlook at {failed.look}"


@stage("parity", "parity", "tracking")
def main(*, parity: ParityConfig, tracking: TrackingConfig) -> None:
    """Judge, print a line for each level, log to MLflow. Raises `ParityError` where a level does not pass."""
    traces = {framework: Trace(Path("results") / framework / "trace") for framework in FRAMEWORKS}
    one, other = traces.values()
    levels = list(judge(one, other, parity))
    failure = reason(levels)
    output = Path("results/parity")
    output.mkdir(parents=True, exist_ok=True)
    document = {
        "passed": failure is None,
        "reason": failure,
        "levels": [_told(level) for level in levels],
    }
    manifest = {
        "settings": traces[FRAMEWORKS[0]].facts["settings"],
        "machine": traces[FRAMEWORKS[0]].facts["machine"],
        **{name: {key: trace.facts[key] for key in _SIDE} for name, trace in traces.items()},
        "differences": {section: differences(one.facts[section], other.facts[section]) for section in _SIDE},
    }
    (output / "parity.json").write_text(json.dumps(document, indent=2) + "\n")
    (output / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (output / "parity.md").write_text(_table(levels))
    pairs = {name: (one.one(f"{name}/loss"), other.one(f"{name}/loss")) for name in ("float64", "float32")}
    lines = {name: loss_deviations(x, y) for name, (x, y) in pairs.items() if x.shape == y.shape}
    allowed = {"float64": parity.trajectory_float64, "float32": parity.trajectory_float32}
    save(deviations(lines, allowed), output / "deviation.png")
    for level in levels:
        mark = "[green]ok[/]    " if level.passed else "[red]FAILED[/]"
        console.print(f"{mark} {level.name:18} {level.verdict}", highlight=False)
    _track(tracking, levels, manifest, output)
    if failure:
        raise ParityError(failure)


def _told(level: Level) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    deviation = level.deviation if np.isfinite(level.deviation) else None
    return asdict(level) | {"deviation": deviation, "passed": level.passed, "verdict": level.verdict}


def _table(levels: Sequence[Level]) -> str:
    lines = ["| level | result | what |", "|---|---|---|"]
    lines += [f"| {level.name} | {'ok' if level.passed else '**FAILED**'} | {level.verdict} |" for level in levels]
    return "\n".join(lines) + "\n"


def _track(tracking: TrackingConfig, levels: Sequence[Level], manifest: Mapping[str, Any], output: Path) -> None:
    from . import environment
    from .tracking import Tracker

    settings = manifest["settings"]
    tags = {
        "stage": "parity",
        "parity": "passed" if all(level.passed for level in levels) else "failed",
        "model": settings["model"]["name"],
        "data": settings["data"].get("name"),
        "data.fingerprint": settings["data"]["fingerprint"],
        **environment.origin(),
    }
    with Tracker(tracking, main_root()).run(f"parity {tags['parity']}", tags=tags) as run:
        run.log_params({key: settings[key] for key in ("model", "train", "data", "trace")})
        measured = {f"parity/{level.name.replace(' ', '_')}": level.deviation for level in levels}
        passed = {f"parity/{level.name.replace(' ', '_')}_passed": float(level.passed) for level in levels}
        run.log_metrics({name: value for name, value in measured.items() if np.isfinite(value)} | passed, step=0)
        for name in ("parity.json", "parity.md", "manifest.json", "deviation.png"):
            run.log_file(output / name)
        run.describe(_table(levels))


if __name__ == "__main__":
    main(sys.argv[1:])
