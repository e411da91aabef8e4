"""`python tests/benchmark_tracking.py tensorflow|pytorch <epochs> [overrides]`: what sending and checkpoints cost.

One training; its epochs are in turn with and without the thread that sends to MLflow, with and without a checkpoint
that is written beside them: a 2 x 2 factorial design in blocks of eight epochs whose order cancels a linear drift. The
effect is the difference of the mean log seconds of an epoch, its interval a bootstrap over whole blocks. Between
processes, speed on a shared machine differs by far more than what is looked for here. Run it in a clone that holds
nothing of worth.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.compose import compose
from pipeline.core.paths import main_root
from pipeline.data.cache import obtain
from pipeline.tracking.sender import Sender
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.context import open_training
from pipeline.training.spec import RunSpec

ORDER = ((1, 1), (0, 0), (1, 0), (0, 1), (0, 1), (1, 0), (0, 0), (1, 1))  # sending, checkpoint
BLOCK = len(ORDER)
DRAWS = 2000


def main(framework: str, epochs: int, overrides: list[str]) -> None:
    """Train for so many epochs, a multiple of eight, after a first block that warms up, and print both effects."""
    sending, draw_epoch, send, save = True, loop.draw_epoch, Sender._round, Checkpoint.save

    def switch(*arguments: Any, epoch: int, **named: Any) -> Any:
        nonlocal sending
        sending = bool(ORDER[epoch % BLOCK][0])
        return draw_epoch(*arguments, epoch=epoch, **named)

    def send_or_not(self: Sender) -> None:
        if sending:
            send(self)

    def save_or_not(self: Checkpoint, state: Any, progress: Any, **named: Any) -> None:
        if ORDER[(progress.epoch - 1) % BLOCK][1]:  # it is written beside the epoch that begins now
            save(self, state, progress, **named)

    loop.draw_epoch = switch
    Sender._round = send_or_not  # type: ignore[method-assign]
    Checkpoint.save = save_or_not  # type: ignore[method-assign]
    config = compose([f"framework={framework}", "seeds=[0]", f"train.epochs={BLOCK + epochs}", *overrides])
    output = Path("outputs/benchmark_tracking") / framework
    output.mkdir(parents=True, exist_ok=True)
    dataset = obtain(config.data, main_root())
    with open_training(RunSpec.of(config, dataset=dataset, output=output)) as context:
        loop.train(context)
        context.complete()
        rows = [row for row in csv.DictReader((output / "history.csv").open()) if row["split"] == "train"]
    seconds = np.array([float(row["seconds"]) for row in rows])[BLOCK:]
    logs, marks = np.log(seconds).reshape(-1, BLOCK), np.array(ORDER)
    print(f"{framework}: {len(seconds)} epochs, median {np.median(seconds):.2f} s, log deviation {logs.std():.3f}")
    generator = np.random.default_rng(0)
    for factor, name in enumerate(("sending to MLflow", "checkpoints")):
        on = marks[:, factor] == 1
        effects = logs[:, on].mean(axis=1) - logs[:, ~on].mean(axis=1)
        drawn = effects[generator.integers(0, len(effects), (DRAWS, len(effects)))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        shown = (f"{np.expm1(value):+.2%}" for value in (effects.mean(), low, high))
        print("{}: {} of an epoch, 95 % interval {} to {}".format(name, *shown))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
