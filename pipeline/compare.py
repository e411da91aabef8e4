"""Stage `compare`: which side is better here, and how sure are we?

`python -m pipeline.compare --params params.yaml` compares the two frameworks as the pipeline trained them;
`python -m pipeline.compare sweep=<id>` and `python -m pipeline.compare a='<filter>' b='<filter>'` what is in MLflow.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .comparison import compare_sides
from .config import CompareConfig, EvaluateConfig, TrackingConfig
from .data.dataset import Dataset
from .data.obtain import PREPARED
from .entry import end_on_sigterm, parse_call, select, stage_sections, user_errors
from .errors import ParityError
from .fairness import differences, told
from .publish import publish, show
from .side import from_results, read_json

SECTIONS = stage_sections("compare", "evaluate", "compare", "tracking")
FRAMEWORKS = ("tensorflow", "pytorch")
_BUSY = 0.15  # of the CPU used by other programs while speed was measured: worth a note


@user_errors
def main(arguments: Sequence[str]) -> None:
    """The DVC stage; with `sweep=` or `a=` and `b=`, what is in MLflow."""
    end_on_sigterm()
    if any(argument.split("=")[0] in ("sweep", "a", "b") for argument in arguments):
        from .selection import compare_stored

        compare_stored(arguments)
        return
    pipeline(**select(parse_call("compare", arguments).config, SECTIONS))


def pipeline(*, evaluate: EvaluateConfig, compare: CompareConfig, tracking: TrackingConfig) -> None:
    """Write `results/comparison/` and print the table."""
    results = Path("results")
    parity = require_fair(results)
    a, b = (from_results(framework, results) for framework in FRAMEWORKS)
    speed = read_json(results / "speed/speed.json")
    busy = speed["others_cpu_share"]
    notes = [f"While speed was measured, other programs used {busy:.0%} of the CPU."] if busy > _BUSY else []
    found = compare_sides(a, b, compare, evaluate.calibration_bins, notes=notes, parity=parity, speed=speed)
    where = publish(found, results / "comparison", Dataset.open(PREPARED), tracking, front=True)
    show(found, results / "comparison/table.txt", where)


def require_fair(results: Path) -> Mapping[str, Any]:
    """What `parity` wrote. Raises `ParityError` unless both sides compute the same, trained alike, as was traced."""
    parity: Mapping[str, Any] = read_json(results / "parity/parity.json")
    if not parity["passed"]:
        raise ParityError(f"refused: the two frameworks do not compute the same: {parity['reason']}")
    one, other = (read_json(results / framework / "manifest.json") for framework in FRAMEWORKS)
    for manifest in (one, other):
        del manifest["settings"]["seeds"]  # those that both have are compared
    found = differences(one["settings"], other["settings"]) | differences(one["machine"], other["machine"], "machine.")
    if found:
        raise ParityError(f"refused: {' and '.join(FRAMEWORKS)} were not trained alike: {told(found)}")
    traced = read_json(results / "parity/manifest.json")["settings"]
    shared = {key: (traced[key], one["settings"][key]) for key in ("model", "train", "data")}
    found = {k: v for key, (a, b) in shared.items() for k, v in differences(a, b, f"{key}.").items()}
    if found:
        raise ParityError(f"refused: parity was shown for other settings than were trained: {told(found)}")
    return parity


if __name__ == "__main__":
    main(sys.argv[1:])
