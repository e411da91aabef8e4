"""The comparison of two arms, paired by seed and example: the numbers behind every page and table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..config.schema.compare import CompareConfig
from ..core.errors import UserError
from ..equality.levels import ParityResult
from ..evaluation.speed_result import ArmSpeed, SpeedResult, round_ratio
from ..evaluation.summary import Ratio, Summary, summarise
from . import paired_tests as paired
from .arm import Arm
from .paired_tests import Difference, McNemar, Wins
from .verdict import Verdict, decide, sentence

TITLES = {"accuracy": "test accuracy", "loss": "test log-loss", "calibration_error": "calibration error"}


@dataclass(frozen=True)
class PairSpeed:
    """The speed of two arms, as the stage `speed` measured it."""

    a: ArmSpeed
    b: ArmSpeed
    ratios: Mapping[str, Ratio]
    """Seconds of B over seconds of A by kind (`training`, `inference`, `latency`): above 1, A is faster."""
    by_restart: Mapping[str, Sequence[float]]
    """The same ratio in each restart of the processes, by kind: these are what the interval is over."""
    rounds: Mapping[str, Sequence[float]]
    """The same ratio in each round of all restarts, by kind."""

    @classmethod
    def of(cls, speed: SpeedResult, arm: str) -> "PairSpeed":
        """Pair the reference, as A, with `arm`, as B."""
        rounds = {
            kind: [round_ratio(row, kind, arm, speed.reference) for of_restart in speed.restarts for row in of_restart]
            for kind in speed.ratios[arm]
        }
        return cls(speed.arms[speed.reference], speed.arms[arm], speed.ratios[arm], speed.by_restart[arm], rounds)

    @property
    def restarts(self) -> int:
        """Number of times that the processes were started anew."""
        return min(ratio.n for ratio in self.ratios.values())

    def document(self) -> dict[str, Any]:
        """Return the entry `speed` of `comparison.json`."""
        ratios = {kind: asdict(ratio) | {"by_restart": self.by_restart[kind]} for kind, ratio in self.ratios.items()}
        return {"ratios": ratios, "a": self.a.model_dump(), "b": self.b.model_dump()}


@dataclass(frozen=True)
class Comparison:
    """Two arms under the same seeds, with every test of their difference."""

    a: Arm
    b: Arm
    notes: tuple[str, ...]
    """Caveats in sentences: seeds left out, settings that differ."""
    differences: Mapping[str, Difference]
    """A minus B, by metric."""
    verdicts: Mapping[str, Verdict]
    """By metric."""
    mcnemar: Sequence[McNemar]
    """One test per seed."""
    compare: CompareConfig
    bins: int
    """Number of bins of the calibration error."""
    speed: PairSpeed | None = None
    """None if the stage `speed` did not measure these arms."""
    parity: ParityResult | None = None
    """The parity of `b` with `a` as its reference; None if the stage `parity` did not compare these arms."""

    def margin(self, metric: str) -> float:
        """Return `compare.margin` of a metric, in the metric's unit."""
        return float(getattr(self.compare.margin, metric))

    def sentence(self, metric: str) -> str:
        """Put the verdict on a metric into words."""
        names = self.a.title, self.b.title
        return sentence(self.verdicts[metric], self.differences[metric], self.margin(metric), *names)

    def label(self, metric: str) -> str:
        """Put the verdict on a metric into a few words."""
        verdict = self.verdicts[metric]
        if verdict.kind == "equivalent":
            return "equivalent"
        if not verdict.learned:
            return "neither learned"
        if verdict.kind == "inconclusive":
            return f"inconclusive (+{verdict.more_seeds} seeds)" if verdict.more_seeds else "inconclusive"
        name = (self.a if verdict.kind == "a_better" else self.b).title
        return f"{name} better{', within the margin' if verdict.within_margin else ''}"

    def faster(self, kind: str) -> str:
        """Name the faster arm at `training`, `inference` or `latency` and by what factor; needs `speed`.

        Return `alike` if the 95 % interval of the ratio includes 1.
        """
        assert self.speed
        ratio = self.speed.ratios[kind]
        if ratio.low <= 1 <= ratio.high:
            return "alike"
        times = max(ratio.mean, 1 / ratio.mean)
        return f"{(self.a if ratio.mean > 1 else self.b).title} {times:.2f}\u00d7"

    @property
    def compared(self) -> str:
        """Say in one line what the two arms are, from their own settings."""
        return f"Compared: {self.a.computes}; {self.b.computes}."

    @cached_property
    def wins(self) -> dict[str, Wins]:
        """Probability that A outperforms B under one seed, by metric."""
        return {metric: paired.wins(difference) for metric, difference in self.differences.items()}

    def document(self) -> dict[str, Any]:
        """Return the content of `comparison.json`."""
        arms = {}
        for key, arm in (("a", self.a), ("b", self.b)):
            runs = {str(seed): run for seed, run in arm.runs.items()}
            arms[key] = {"name": arm.title, "runs": runs, **arm.manifest.model_dump()}
        return {
            "verdict": self.verdicts["accuracy"].kind,
            "sentence": self.sentence("accuracy"),
            "compared": self.compared,
            "seeds": list(self.a.seeds),
            "examples": len(self.a.labels),
            "notes": list(self.notes),
            **arms,
            "metrics": {metric: self._metric_document(metric) for metric in self.differences},
            "mcnemar": [asdict(test) for test in self.mcnemar],
            "speed": self.speed.document() if self.speed else None,
            "parity": self.parity.model_dump(include={"passed", "levels"}) if self.parity else None,
        }

    def _metric_document(self, metric: str) -> dict[str, Any]:
        difference, margin = self.differences[metric], self.margin(metric)
        distribution = difference.distribution()
        low, high = difference.interval()
        equivalence_low, equivalence_high = difference.equivalence_interval(margin)
        return {
            "a": {**_mean_and_std(summarise(difference.a)), "by_seed": list(difference.a)},
            "b": {**_mean_and_std(summarise(difference.b)), "by_seed": list(difference.b)},
            "difference": {
                "mean": difference.mean,
                "low": low,
                "high": high,
                "standard_error": distribution.standard_error,
                "share_of_examples": distribution.example_share,
                "p_value": difference.p_value,
            },
            "equivalence": {
                "margin": margin,
                "p_value": difference.p_equivalence(margin),
                "low": equivalence_low,
                "high": equivalence_high,
            },
            "a_beats_b": asdict(self.wins[metric]),
            "verdict": asdict(self.verdicts[metric]) | {"sentence": self.sentence(metric)},
        }

    def numbers(self) -> dict[str, dict[str, float]]:
        """Return the few numbers that MLflow shows, by metric and, with `speed`, by `speed_<kind>`."""
        numbers: dict[str, dict[str, float]] = {}
        for metric, difference in self.differences.items():
            low, high = difference.interval()
            numbers[metric] = {"difference": difference.mean, "low": low, "high": high, "p_value": difference.p_value}
        for kind, ratio in self.speed.ratios.items() if self.speed else ():
            numbers[f"speed_{kind}"] = {"ratio": ratio.mean, "low": ratio.low, "high": ratio.high}
        return numbers


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
    """Pair two arms by seed and example, and test their difference.

    `bins`: of the calibration error. Raises `UserError` if the arms have different test labels, no seed in common, or
    were trained by other numbers of ranks, as their times would be of other machinery.
    """
    if a.manifest.world != b.manifest.world:
        trained = f"{a.title} was trained with {a.manifest.world}, {b.title} with {b.manifest.world}"
        raise UserError(f"train.world: {trained}; allowed: the same for both")
    if a.labels.shape != b.labels.shape or (a.labels != b.labels).any():
        raise UserError(f"{a.title} and {b.title} were not evaluated on the same examples")
    common = sorted(set(a.seeds) & set(b.seeds))
    if not common:
        raise UserError(f"{a.title} has the seeds {_list(a.seeds)}, {b.title} {_list(b.seeds)}: none in common to pair")
    seed_notes = _seed_notes(a, b, common)
    a, b = a.with_seeds(common), b.with_seeds(common)
    all_notes = (*notes, *seed_notes, *_learning_notes(a, b))
    learned = bool(a.learned or b.learned)
    differences = paired.differences(a.outputs, b.outputs, a.labels, bins=bins, resamples=config.resamples)
    verdicts = {
        metric: decide(value, getattr(config.margin, metric), learned=learned) for metric, value in differences.items()
    }
    tests = paired.mcnemar(a.outputs, b.outputs, a.labels, common)
    return Comparison(a, b, all_notes, differences, verdicts, tests, config, bins, speed, parity)


def _seed_notes(a: Arm, b: Arm, common: Sequence[int]) -> list[str]:
    """Name the seeds that are left out, and the limits of a single seed."""
    notes = []
    for arm in (a, b):
        if left_out := sorted(set(arm.seeds) - set(common)):
            seeds = f"seed{'s' * (len(left_out) > 1)} {_list(left_out)}"
            notes.append(f"Only seeds that both have are compared: {seeds} of {arm.title} left out.")
    if len(common) == 1:
        notes.append(
            f"One seed ({common[0]}): this tells two trained models apart, not two ways of training them. "
            "Intervals are over the examples alone."
        )
    return notes


def _learning_notes(a: Arm, b: Arm) -> list[str]:
    """Name the seeds under which an arm has not learned, and say so if both arms answer the same."""
    notes = []
    for arm in (a, b):
        if failed := [seed for seed in arm.seeds if seed not in arm.learned]:
            seeds = f"seed{'s' * (len(failed) > 1)} {_list(failed)}"
            notes.append(f"{arm.title} has not learned under {seeds}: no better than the shares of the classes.")
    if (a.outputs.argmax(axis=-1) == b.outputs.argmax(axis=-1)).all():
        notes.append("Both arms give the same answer to every test image, under every seed.")
    return notes


def _mean_and_std(summary: Summary) -> dict[str, float | None]:
    """Return mean and standard deviation; the latter is None for one seed, as JSON has no NaN."""
    return {"mean": summary.mean, "std": _finite(summary.std)}


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
