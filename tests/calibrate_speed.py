"""How often the interval of a speed ratio is right: `python tests/calibrate_speed.py [--times 10] [key=value ...]`.

Measures the speed of the frameworks so many times, one measurement after the other, on the prepared data (stage
`prepare`), and counts how many of the 95 % intervals contain the mean of all measurements, and how many contain the
mean of another measurement. Beside it stands the same for intervals over the rounds of a single restart, as if rounds
of the same processes were independent. Run it on a machine that does nothing else: a machine whose speed moves between
measurements moves all ratios of one together.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import stdtr, stdtrit

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipeline.config.compose import compose
from pipeline.core import frameworks
from pipeline.data.dataset import Dataset
from pipeline.evaluation.speed import KINDS, measure
from pipeline.evaluation.speed_result import round_ratio
from pipeline.evaluation.summary import Ratio, geometric_ratio


def contained(intervals: Sequence[Ratio]) -> tuple[int, float]:
    """How many intervals contain the mean of all, and the share of the other measurements' means that one contains."""
    means = np.array([interval.mean for interval in intervals])
    grand = np.exp(np.log(means).mean())
    inside = np.array([[i.low <= mean <= i.high for mean in means] for i in intervals])
    others = inside[~np.eye(len(means), dtype=bool)].mean()
    return sum(i.low <= grand <= i.high for i in intervals), float(others)


def expected(units: int) -> float:
    """The chance that an exact 95 % interval over so many units contains the mean of another such measurement."""
    return float(2 * stdtr(units - 1, stdtrit(units - 1, 0.975) / 2**0.5) - 1)


def line(what: str, intervals: Sequence[Ratio]) -> str:
    inside, others = contained(intervals)
    units = f"{intervals[0].n} each"
    if intervals[0].n < 2:
        return f"  {what} ({units}): no interval"
    return (
        f"  {what} ({units}): {inside} of {len(intervals)} contain the mean of all (95 % expected); "
        f"{others:.0%} of the others' means ({expected(intervals[0].n):.0%} expected)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the ratios of every restart and round here")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as compare.speed.restarts=5")
    options = parser.parse_intermixed_args()
    config, dataset = compose(options.overrides), Dataset.open(Path("data/prepared"))
    reference, *others = frameworks.names()
    measured, began = [], time.perf_counter()
    for number in range(options.times):
        start = time.perf_counter()
        measured.append(measure(dataset, config.model, config.train, config.compare.speed, frameworks.names()))
        one = measured[-1]
        shown = "; ".join(
            f"{arm} {kind} {r.mean:.3f} [{r.low:.3f}, {r.high:.3f}]"
            for arm in others
            for kind, r in one.ratios[arm].items()
        )
        busy = f"other programs {one.others_cpu_share:.0%}"
        print(f"{number + 1}: {shown}; {busy}, {time.perf_counter() - start:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps([one.model_dump() for one in measured]))
    for arm in others:
        for kind in KINDS:
            print(f"{reference} / {arm}, {kind}:")
            print(line("over the restarts", [one.ratios[arm][kind] for one in measured]))
            ratios = [[round_ratio(row, kind, arm, reference) for row in one.restarts[0]] for one in measured]
            if len(ratios[0]) > 1:
                print(line("over the rounds of the first restart", [geometric_ratio(rounds) for rounds in ratios]))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
