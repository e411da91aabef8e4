"""Decide which framework is better here, and how sure that is (stage `compare`).

  python -m pipeline.compare --params params.yaml       the frameworks as the pipeline trained them
  python -m pipeline.compare sweep=<id>                 the frameworks under every configuration of a sweep in MLflow
  python -m pipeline.compare a='<filter>' b='<filter>'  any two arms in MLflow; a filter has the syntax of its UI, as in
                                                        params.`train.optimizer.name` = "adam"

Pairs two arms by seed and by test image. Refuses if parity failed or if the settings of the arms differ. Writes
results/comparison, multirun/<id>/comparison or outputs/<time>-comparison.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from .comparison.arm import from_results
from .comparison.from_mlflow import SweepArms, compare_filters
from .comparison.result import PairSpeed, compare_arms
from .config.call import parse_call, select, stage_sections
from .config.schema.compare import CompareConfig
from .config.schema.evaluate import EvaluateConfig
from .config.schema.tracking import TrackingConfig
from .config.schema.whole import Config
from .core import frameworks
from .core.claim import create_new, lock
from .core.errors import ParityError, UserError
from .core.exits import command
from .core.files import make_folder
from .core.paths import PREPARED, RESULTS, main_root
from .core.progress import steps
from .core.signals import end_on_signals
from .data.dataset import Dataset
from .equality.fairness import differences, differing_sections, in_words
from .equality.levels import ParityResult
from .evaluation.speed_result import SpeedResult
from .exports.result import ExportResult
from .models.manifest import Manifest
from .reports.publish import publish
from .reports.table import show, show_all
from .tracking.store import ensure_store
from .tracking.tracker import Tracker

SECTIONS = stage_sections("compare", "evaluate", "compare", "tracking")
_SOURCES: Final = ("sweep", "a", "b")
_BUSY: Final = 0.15  # share of the CPU that other programs use during the measurement of speed: above it, add a note


@command
def main(arguments: Sequence[str]) -> None:
    """Run the DVC stage; with `sweep=`, or `a=` and `b=`, compare runs in MLflow. Raises `UserError`, `ParityError`."""
    end_on_signals()
    sources = {key: value for key, sign, value in (a.partition("=") for a in arguments) if sign and key in _SOURCES}
    others = [argument for argument in arguments if argument.partition("=")[0] not in _SOURCES]
    call = parse_call("compare", others, __doc__)
    if not sources:
        compare_results(**select(call.config, SECTIONS))
        return
    if set(sources) not in ({"sweep"}, {"a", "b"}):
        raise UserError(f"{' and '.join(sources)}: allowed: sweep=<id>, or both a=<filter> and b=<filter>")
    if empty := [key for key, value in sources.items() if not value]:
        raise UserError(f"{empty[0]} is empty; allowed: sweep=<id>, or a=<filter> and b=<filter>")
    tracker = Tracker(call.config.tracking, main_root())
    if "sweep" in sources:
        compare_sweep(tracker, sources["sweep"], call.config)
    else:
        compare_two(tracker, sources["a"], sources["b"], call.config)


def compare_results(*, evaluate: EvaluateConfig, compare: CompareConfig, tracking: TrackingConfig) -> None:
    """Compare each framework with the reference; write `results/comparison/` and print the table."""
    ensure_store(main_root())  # before the work
    parity = require_fair(RESULTS)
    speed = SpeedResult.read(RESULTS / "speed/speed.json", outdated="run `dvc repro speed`")
    busy = speed.others_cpu_share
    notes = [f"While speed was measured, other programs used {busy:.0%} of the CPU."] if busy > _BUSY else []
    reference, *others = frameworks.names()
    a, dataset, home = from_results(reference, RESULTS), Dataset.open(PREPARED), RESULTS / "comparison"
    if differing := _unlike_trained(speed.settings, a.manifest):
        measured = "speed was measured under other settings than were trained"
        raise UserError(f"refused: {measured}: {in_words(differing)}; run `dvc repro`")
    comparisons = {}
    for name in others:
        b, output = from_results(name, RESULTS), home if len(others) == 1 else home / name
        comparison = compare_arms(
            a,
            b,
            compare,
            evaluate.calibration_bins,
            notes=notes,
            speed=PairSpeed.of(speed, name),
            parity=parity.of_arm(name),
        )
        exported = [path for arm in (reference, name) if (path := RESULTS / arm / "exports.json").exists()]
        exports = [ExportResult.read(path, "run `dvc repro export`") for path in exported]
        where = publish(comparison, output, dataset, tracking, front=True, exports=exports)
        show(comparison, output / "table.txt", where)
        comparisons[b.title] = comparison
    if len(others) > 1:
        show_all(comparisons, f"{home}/<framework>/report.html")


def require_fair(results: Path) -> ParityResult:
    """Return the result of `parity`.

    Raises `ParityError` if it failed, if arms were trained under different settings or on different machines, or if
    they were trained under other settings than were traced.
    """
    parity = ParityResult.read(results / "parity/parity.json", outdated="run `dvc repro parity`")
    if not parity.passed:
        raise ParityError(f"refused: the frameworks do not compute the same: {parity.reason}")
    manifests = {name: Manifest.read(results / name / "manifest.json") for name in frameworks.names()}
    (reference, expected), *others = manifests.items()
    for name, manifest in others:
        differing = differing_sections(expected, manifest)
        differing.pop("seeds", None)  # the comparison takes the seeds that both have
        if differing:
            raise ParityError(f"refused: {reference} and {name} were not trained alike: {in_words(differing)}")
    traced = ParityResult.traced_settings(results / "parity/manifest.json")
    if differing := _unlike_trained(traced, expected):
        raise ParityError(f"refused: parity was shown for other settings than were trained: {in_words(differing)}")
    return parity


def _unlike_trained(settings: Mapping[str, Any], trained: Manifest) -> dict[str, tuple[Any, Any]]:
    """Return the values of every key of the network, the training and the data that differ."""
    a, b = ({key: every[key] for key in ("model", "train", "data")} for every in (settings, trained.settings))
    return differences(a, b)


def compare_sweep(tracker: Tracker, sweep: str, config: Config) -> None:
    """Compare the frameworks under every configuration of a sweep; write below the sweep's folder, else `outputs/`."""
    arms = SweepArms(tracker, sweep)
    folder = Path("multirun") / sweep
    home = (folder if folder.exists() else Path("outputs") / sweep) / "comparison"
    comparisons = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        ExitStack() as stack,
        steps("compare", len(arms), "comparisons") as progress,
    ):
        lock(home, stack)
        for number, stored in enumerate(arms.compare(config, Path(scratch))):
            output = home / str(number) if len(arms) > 1 else home
            where = publish(
                stored.comparison,
                output,
                stored.dataset,
                config.tracking,
                label=stored.brief,
                parent=arms.parent,
                tags={"sweep": sweep},
            )
            comparisons[stored.label] = stored.comparison
            progress()
    if len(arms) == 1:
        show(stored.comparison, output / "table.txt", where)
    else:
        show_all(comparisons, f"{home}/<number>/report.html")
    if arms.left_out:
        print(f"Left out: {arms.left_out} of {arms.configurations} configurations, trained in one framework only.")


def compare_two(tracker: Tracker, a: str, b: str, config: Config) -> None:
    """Compare the runs that match two MLflow filters; write below `outputs/`."""
    make_folder(Path("outputs"))
    with tempfile.TemporaryDirectory() as scratch:
        stored = compare_filters(tracker, a, b, config, Path(scratch))
    output = create_new(Path("outputs") / time.strftime("%Y-%m-%d_%H-%M-%S-comparison"))
    where = publish(stored.comparison, output, stored.dataset, config.tracking, tags={"a": a, "b": b})
    show(stored.comparison, output / "table.txt", where)


if __name__ == "__main__":
    main(sys.argv[1:])
