"""How often the verdict is right, on simulated pairs: `python tests/calibrate_verdict.py [--pairs N] [--seeds 3 5 10]`.

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
from pipeline.comparison.verdict import decide

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


def plain_bootstrap_finds(a: np.ndarray, b: np.ndarray, generator: np.random.Generator, resamples: int) -> bool:
    """Whether the percentile interval of a bootstrap over seeds and examples leaves out 0: accuracy."""
    d = (a[..., 1] > a[..., 0]) * 1.0 - (b[..., 1] > b[..., 0])
    s, n = d.shape
    rows = generator.multinomial(s, np.full(s, 1 / s), resamples) / s
    columns = generator.multinomial(n, np.full(n, 1 / n), resamples) / n
    means = ((rows @ d) * columns).sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return bool(low > 0 or high < 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--scenarios", nargs="+", default=[name for name in SCENARIOS if name != "noisy training"])
    options = parser.parse_args()
    began = time.perf_counter()
    print(f"{options.pairs} pairs each, {options.examples} examples, margin {MARGIN:.1%}; percentages of the pairs")
    head = ("scenario", "seeds", "better: acc", "loss", "calib.", "plain boot.", "equiv.", "+0.5: better", "+1: better")
    print(" | ".join((*head, "at the margin: equiv.")), flush=True)
    for name in options.scenarios:
        effects = SCENARIOS[name]
        gains = {points: gain_for(points, effects) for points in (0.5, 1.0)}
        for seeds in options.seeds:
            counts = dict.fromkeys(("accuracy", "loss", "calibration_error", "plain", "equivalent"), 0)
            power = dict.fromkeys(gains, 0)
            falsely_equivalent = 0
            generator = np.random.default_rng(seeds)
            for _ in range(options.pairs):
                a, b, labels = outputs(generator, seeds, options.examples, effects, 0.0)
                draw = int(generator.integers(2**32))
                found = paired.differences(a, b, labels, bins=15, resamples=options.resamples, seed=draw)
                for metric, difference in found.items():
                    counts[metric] += decide(difference, MARGIN).kind in ("a_better", "b_better")
                counts["plain"] += plain_bootstrap_finds(a, b, generator, options.resamples)
                counts["equivalent"] += decide(found["accuracy"], MARGIN).kind == "equivalent"
                for points, gain in gains.items():
                    a, b, labels = outputs(generator, seeds, options.examples, effects, gain)
                    accuracy = paired.differences(a, b, labels, bins=15, resamples=options.resamples, seed=draw)[
                        "accuracy"
                    ]
                    power[points] += decide(accuracy, MARGIN).kind == "a_better"
                    if points == 100 * MARGIN:
                        falsely_equivalent += accuracy.p_equivalence(MARGIN) < paired.LEVEL
            cells = [*counts.values(), *power.values(), falsely_equivalent]
            print(" | ".join((name, str(seeds), *(f"{100 * c / options.pairs:.1f}" for c in cells))), flush=True)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
