"""Two sides, paired by seed and example, and what is concluded: the numbers behind every page and table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..config.schema.compare import CompareConfig
from ..core.errors import UserError
from ..equality.levels import ParityResult
from ..evaluation.speed import ArmSpeed, SpeedResult
from ..evaluation.summary import Ratio, Summary, summarise
from . import paired_tests as paired
from .arm import Arm
from .paired_tests import Difference, McNemar, Wins
from .verdict import Verdict, decide, sentence

TITLES = {"accuracy": "test accuracy", "loss": "test log-loss", "calibration_error": "calibration error"}


@dataclass(frozen=True)
class PairSpeed:
    """Two arms of what the stage `speed` measured."""

    a: ArmSpeed
    b: ArmSpeed
    ratios: Mapping[str, Ratio]
    """By kind: above 1, A is faster."""
    rounds: Mapping[str, Sequence[float]]
    """By kind: the ratio of each round."""

    @classmethod
    def of(cls, speed: SpeedResult, arm: str) -> "PairSpeed":
        """Take the reference as A, and `arm` as B."""
        rounds = {
            kind: [float(np.median(row[kind][arm]) / np.median(row[kind][speed.reference])) for row in speed.rounds]
            for kind in speed.ratios[arm]
        }
        return cls(speed.arms[speed.reference], speed.arms[arm], speed.ratios[arm], rounds)

    def document(self) -> dict[str, Any]:
        """Return what `comparison.json` says of it."""
        ratios = {kind: asdict(ratio) for kind, ratio in self.ratios.items()}
        return {"ratios": ratios, "a": self.a.model_dump(), "b": self.b.model_dump()}


@dataclass(frozen=True)
class Comparison:
    """Two sides under the same seeds, and everything that is said of them."""

    a: Arm
    b: Arm
    notes: tuple[str, ...]
    """What a reader must know: seeds left out, settings that differ."""
    differences: Mapping[str, Difference]
    verdicts: Mapping[str, Verdict]
    mcnemar: Sequence[McNemar]
    compare: CompareConfig
    bins: int
    speed: "PairSpeed | None" = None
    parity: ParityResult | None = None
    """Of `b` with `a` as its reference."""

    def margin(self, metric: str) -> float:
        """`compare.margin` of a metric."""
        return float(getattr(self.compare.margin, metric))

    def sentence(self, metric: str) -> str:
        """The verdict on a metric, in words."""
        names = self.a.title, self.b.title
        return sentence(self.verdicts[metric], self.differences[metric], self.margin(metric), *names)

    def label(self, metric: str) -> str:
        """The verdict on a metric, in a word or two."""
        verdict = self.verdicts[metric]
        if verdict.kind == "equivalent":
            return "equivalent"
        if verdict.kind == "inconclusive":
            return f"inconclusive (+{verdict.more_seeds} seeds)" if verdict.more_seeds else "inconclusive"
        name = (self.a if verdict.kind == "a_better" else self.b).title
        return f"{name} better{', within the margin' if verdict.within_margin else ''}"

    def faster(self, kind: str) -> str:
        """Who is faster at `training`, `inference` or `latency`, in a word or two; needs `speed`."""
        assert self.speed
        ratio = self.speed.ratios[kind]
        if ratio.low <= 1 <= ratio.high:
            return "alike"
        times = max(ratio.mean, 1 / ratio.mean)
        return f"{(self.a if ratio.mean > 1 else self.b).title} {times:.2f}\u00d7"

    @cached_property
    def wins(self) -> dict[str, Wins]:
        """Probability that A beats B under one seed, by metric."""
        return {metric: paired.wins(difference) for metric, difference in self.differences.items()}

    def document(self) -> dict[str, Any]:
        """`comparison.json`."""
        found: dict[str, Any] = {}
        for metric, difference in self.differences.items():
            low, high = difference.interval()
            margin, verdict = self.margin(metric), self.verdicts[metric]
            reference, narrow = difference.reference(), difference.equivalence_interval(margin)
            found[metric] = {
                "a": {**_plain(summarise(difference.a)), "by_seed": list(difference.a)},
                "b": {**_plain(summarise(difference.b)), "by_seed": list(difference.b)},
                "difference": {
                    "mean": difference.mean,
                    "low": low,
                    "high": high,
                    "standard_error": reference.error,
                    "share_of_examples": reference.known,
                    "p_value": difference.p_value,
                },
                "equivalence": {
                    "margin": margin,
                    "p_value": difference.p_equivalence(margin),
                    "low": narrow[0],
                    "high": narrow[1],
                },
                "a_beats_b": asdict(self.wins[metric]),
                "verdict": asdict(verdict) | {"sentence": self.sentence(metric)},
            }
        arms = {}
        for key, arm in (("a", self.a), ("b", self.b)):
            runs = {str(seed): run for seed, run in arm.runs.items()}
            arms[key] = {"name": arm.title, "runs": runs, **arm.manifest.model_dump()}
        return {
            "verdict": self.verdicts["accuracy"].kind,
            "sentence": self.sentence("accuracy"),
            "seeds": list(self.a.seeds),
            "examples": len(self.a.labels),
            "notes": list(self.notes),
            **arms,
            "metrics": found,
            "mcnemar": [asdict(test) for test in self.mcnemar],
            "speed": self.speed.document() if self.speed else None,
            "parity": self.parity.model_dump(include={"passed", "levels"}) if self.parity else None,
        }

    def numbers(self) -> dict[str, dict[str, float]]:
        """The few that MLflow shows, by metric."""
        found: dict[str, dict[str, float]] = {}
        for metric, difference in self.differences.items():
            low, high = difference.interval()
            found[metric] = {"difference": difference.mean, "low": low, "high": high, "p_value": difference.p_value}
        for kind, ratio in self.speed.ratios.items() if self.speed else ():
            found[f"speed_{kind}"] = {"ratio": ratio.mean, "low": ratio.low, "high": ratio.high}
        return found


def compare_arms(
    a: Arm,
    b: Arm,
    config: CompareConfig,
    bins: int,
    *,
    notes: Sequence[str] = (),
    speed: PairSpeed | None = None,
    parity: ParityResult | None = None,
) -> Comparison:
    """Pair the two by seed and example. Raises `UserError` where they have no seed or not the same labels in common."""
    if a.labels.shape != b.labels.shape or (a.labels != b.labels).any():
        raise UserError(f"{a.title} and {b.title} were not evaluated on the same examples")
    common = sorted(set(a.seeds) & set(b.seeds))
    if not common:
        raise UserError(f"{a.title} has the seeds {_list(a.seeds)}, {b.title} {_list(b.seeds)}: none in common to pair")
    said = list(notes)
    for arm in (a, b):
        if left_out := sorted(set(arm.seeds) - set(common)):
            seeds = f"seed{'s' * (len(left_out) > 1)} {_list(left_out)}"
            said.append(f"Only seeds that both have are compared: {seeds} of {arm.title} left out.")
    if len(common) == 1:
        said.append(
            f"One seed ({common[0]}): this tells two trained models apart, not two ways of training them. "
            "Intervals are over the examples alone."
        )
    a, b = a.with_seeds(common), b.with_seeds(common)
    found = paired.differences(a.outputs, b.outputs, a.labels, bins=bins, resamples=config.resamples)
    verdicts = {metric: decide(difference, getattr(config.margin, metric)) for metric, difference in found.items()}
    tests = paired.mcnemar(a.outputs, b.outputs, a.labels, common)
    return Comparison(a, b, tuple(said), found, verdicts, tests, config, bins, speed, parity)


def _plain(summary: Summary) -> dict[str, float | None]:
    return {"mean": summary.mean, "std": _finite(summary.std)}


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if abs(value) < float("inf") else None


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
