"""How often the verdict is right, on simulated pairs: `python tests/calibrate_verdict.py [--pairs N] [--seeds 2 3 5]`.

Each pair is two sides whose models, seed by seed, are scored on the same examples. A model is right on example n with
probability expit(skill + difficulty_n + side_effect + seed_effect + side_seed_effect + side_example_effect_n), so that
examples are hard for everybody, seeds are lucky for both sides, and a side has a taste of its own in examples and in
seeds. A/A: both sides have the same expected accuracy over seeds and examples, by construction: side_effect is 0 and
all effects are drawn alike for both.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipeline.comparison import paired_tests as paired
from pipeline.comparison.paired_tests import resampling_weights

SCENARIOS = {  # on the logit scale: deviation of (side x seed), of (side x example); scale of each training's own draw
    "like this pipeline": (0.01, 0.04, 0.1),  # 0.3 % of the examples differ, a twentieth of it by example, as measured
    "noisy training": (0.06, 0.3, 0.8),
    "lucky seeds": (0.3, 0.3, 0.8),
    "lucky seeds and tastes": (0.3, 1.5, 0.8),
}
MARGIN = 0.005


def outputs(
    generator: np.random.Generator, seeds: int, n: int, effects: tuple[float, float, float], gain: float
) -> tuple:
    """Two sides' outputs (S, N, 2) and labels (N,), all 1; `gain`: added to the logit of side A."""
    of_seed, of_example, of_training = effects
    difficulty = generator.normal(0, 3, n)
    luck = generator.normal(0, 0.1, seeds)
    sides = []
    for shift in (gain, 0.0):
        mine = generator.normal(0, of_seed, seeds)[:, None] + generator.normal(0, of_example, n)
        # each training run ends elsewhere: a draw of its own for each example
        logit = 6.5 + difficulty + shift + luck[:, None] + mine + generator.logistic(0, of_training, (seeds, n))
        sides.append(np.stack([np.zeros((seeds, n)), logit / 1.5], axis=2))
    return sides[0], sides[1], np.ones(n, np.int64)


def expected_accuracy(gain: float, effects: tuple[float, float, float]) -> float:
    """Over all seeds and examples: the mean of expit((6.5 + gain + z) / scale) over the normal z."""
    deviation = (3**2 + 0.1**2 + effects[0] ** 2 + effects[1] ** 2) ** 0.5
    z = np.linspace(-9, 9, 40_001)
    weights = np.exp(-(z**2) / 2)
    return float(expit((6.5 + gain + deviation * z) / effects[2]) @ weights / weights.sum())


def gain_for(points: float, effects: tuple[float, float, float]) -> float:
    """The logit that is worth so many points of expected accuracy."""
    base = expected_accuracy(0, effects)
    return float(brentq(lambda gain: 100 * (expected_accuracy(gain, effects) - base) - points, 0, 5))


def plain_bootstrap_finds(a: np.ndarray, b: np.ndarray, columns: np.ndarray, generator: np.random.Generator) -> bool:
    """Whether the percentile interval of a bootstrap over seeds and examples leaves out 0: accuracy."""
    d = (a[..., 1] > a[..., 0]) * 1.0 - (b[..., 1] > b[..., 0])
    rows = generator.multinomial(len(d), np.full(len(d), 1 / len(d)), len(columns)) / len(d)
    low, high = np.quantile((rows * (columns @ d.T)).sum(axis=1), (0.025, 0.975))
    return bool(low > 0 or high < 0)


def verdict(difference: paired.Difference) -> str:
    """As `comparison.verdict.decide`, without the number of further seeds, which takes most of the time."""
    if difference.p_value < paired.LEVEL:
        return "better"
    return "equivalent" if difference.p_equivalence(MARGIN) < paired.LEVEL else "inconclusive"


class Cell:
    """One row of the table: one scenario and number of seeds."""

    def __init__(self, scenario: str, seeds: int, examples: int, resamples: int) -> None:
        self.effects, self.seeds, self.examples, self.resamples = SCENARIOS[scenario], seeds, examples, resamples
        self.generator = np.random.default_rng([list(SCENARIOS).index(scenario), seeds])
        self.drawn = 0
        self.weights = np.zeros((0, examples))

    def pair(self, gain: float) -> tuple[dict[str, paired.Difference], tuple]:
        """The differences of one pair, and its outputs. The resampled examples are drawn anew for every 20 pairs."""
        if self.drawn % 20 == 0:
            (self.weights,) = resampling_weights(self.examples, self.resamples, self.generator)
        self.drawn += 1
        paired.resampling_weights = lambda *_: [self.weights]
        a, b, labels = outputs(self.generator, self.seeds, self.examples, self.effects, gain)
        return paired.differences(a, b, labels, bins=15, resamples=self.resamples), (a, b)

    def means(self, pairs: int) -> list[float]:
        """Percentages of pairs that are alike and are called better: accuracy and log-loss.

        These are means over examples, whose covariance has a closed form: that of infinitely many resamples.
        """
        counts = {"accuracy": 0, "loss": 0}
        for _ in range(pairs):
            a, b, labels = outputs(self.generator, self.seeds, self.examples, self.effects, 0.0)
            for metric, part in (("accuracy", paired._hits), ("loss", paired._losses)):
                values = part(a, labels), part(b, labels)
                replicates = (values[0] - values[1]).T / self.examples**0.5  # their covariance is that of the means
                means = (of.mean(axis=1) for of in values)
                counts[metric] += verdict(paired._difference(metric, *means, replicates, self.examples)) == "better"
        return [100 * count / pairs for count in counts.values()]

    def alike(self, pairs: int) -> list[float]:
        """The same for the calibration error, and for the plain bootstrap; pairs called equivalent in accuracy."""
        counts = dict.fromkeys(("calibration_error", "plain", "equivalent"), 0)
        for _ in range(pairs):
            found, (a, b) = self.pair(0.0)
            counts["calibration_error"] += verdict(found["calibration_error"]) == "better"
            counts["plain"] += plain_bootstrap_finds(a, b, self.weights, self.generator)
            counts["equivalent"] += verdict(found["accuracy"]) == "equivalent"
        return [100 * count / pairs for count in counts.values()]

    def apart(self, points: float, pairs: int) -> tuple[float, float]:
        """Percentages of pairs that are found better, and that pass as equivalent, at a true difference in accuracy."""
        gain, better, equivalent = gain_for(points, self.effects), 0, 0
        for _ in range(pairs):
            accuracy = self.pair(gain)[0]["accuracy"]
            better += verdict(accuracy) == "better" and accuracy.favours_a
            equivalent += accuracy.p_equivalence(MARGIN) < paired.LEVEL
        return 100 * better / pairs, 100 * equivalent / pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6000, help="for accuracy and log-loss: a standard error of 0.3 %%")
    parser.add_argument("--bootstrap", type=int, default=1000, help="for the other columns: of 0.7 %% at 5 %%; 0: none")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    options = parser.parse_args()
    began = time.perf_counter()
    print(
        f"{options.pairs} and {options.bootstrap} pairs, {options.examples} examples, margin {MARGIN:.1%}; percentages"
    )
    head = ("scenario", "seeds", "better: acc", "loss", "calib.", "plain boot.", "equiv.", "+0.5: better", "+1: better")
    print(" | ".join((*head, "at the margin: equiv.")), flush=True)
    for name in options.scenarios:
        for seeds in options.seeds:
            cell = Cell(name, seeds, options.examples, options.resamples)
            cells = cell.means(options.pairs)
            if options.bootstrap:
                cells += cell.alike(options.bootstrap)
                half, at_margin = cell.apart(100 * MARGIN, options.bootstrap)
                cells += [half, cell.apart(1.0, options.bootstrap)[0], at_margin]
            print(" | ".join((name, str(seeds), *(f"{value:.1f}" for value in cells))), flush=True)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
