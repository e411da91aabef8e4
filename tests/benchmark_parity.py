"""`python tests/benchmark_parity.py [network ...] [key=value ...]`: parity of every network with every training.

Prints a row for each network and optimizer: the largest deviation over the schedules, in float64 and in float32.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tracing import Tracer, compare

from pipeline.config.compose import CONF
from pipeline.core.frameworks import names
from pipeline.core.paths import main_root

SCHEDULES = {
    "constant": ["train/schedule=constant"],
    "cosine": ["train/schedule=cosine"],
    "step": ["train/schedule=step", "train.schedule.every_epochs=1"],
    "warm-up": ["train/schedule=cosine", "train.schedule.warmup_steps=10"],
}


def choices(group: str) -> list[str]:
    """Every choice of a group of `conf/`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def main(arguments: list[str]) -> None:
    """Print the table, and every level that does not pass."""
    data = main_root() / "data/prepared"
    failures = 0
    networks = [argument for argument in arguments if "=" not in argument]
    common = [argument for argument in arguments if "=" in argument]
    print("| network | execution | optimizer | float64 | float32 | passed |\n|-|-|-|-|-|-|", flush=True)
    with tempfile.TemporaryDirectory() as name, Tracer("tensorflow") as tensorflow, Tracer("pytorch") as pytorch:
        for network in networks or choices("model"):
            for execution in ("auto", "eager", "compiled"):
                for optimizer in choices("train/optimizer"):
                    worst = {"trajectory float64": 0.0, "trajectory float32": 0.0}
                    passed = 0
                    for schedule, overrides in SCHEDULES.items():
                        folder = Path(name) / "trace"
                        asked = [
                            f"model={network}",
                            f"train/optimizer={optimizer}",
                            f"train.execution={execution}",
                            *common,
                        ]
                        for tracer in (tensorflow, pytorch):
                            tracer.ask(data, folder / tracer.framework, [*asked, *overrides])
                        for tracer in (tensorflow, pytorch):
                            tracer.answer()
                        levels = compare(folder)
                        shutil.rmtree(folder)
                        bad = [level for level in levels if not level.passed]
                        for level in bad:
                            print(f"FAILED {network} {execution} {optimizer} {schedule}: {level.name} {level.verdict}")
                        passed += not bad
                        failures += bool(bad)
                        for level in levels:
                            if level.name in worst:
                                worst[level.name] = max(worst[level.name], level.deviation)
                    numbers = " | ".join(f"{value:.1e}" for value in worst.values())
                    row = f"| {network} | {execution} | {optimizer} | {numbers} | {passed} of {len(SCHEDULES)} |"
                    print(row, flush=True)
    print(f"{failures} failed ({', '.join(names())})")


if __name__ == "__main__":
    main(sys.argv[1:])
