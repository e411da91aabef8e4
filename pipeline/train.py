"""Train one framework with all seeds; with -m, sweep over combinations of comma-separated values.

  python -m pipeline.train framework=pytorch 'seeds=[0]'          one run, files below outputs/
  python -m pipeline.train -m framework=tensorflow,pytorch model=simple_cnn,lenet5   a sweep, files below multirun/
  python -m pipeline.train --cfg job                              print the whole configuration
  python -m pipeline.train --params params.yaml framework=pytorch the DVC stage train@pytorch, files in results/
  torchrun --nproc-per-node 2 -m pipeline.train framework=pytorch     one training in two processes (or train.world=2)

A run, and each job of a sweep, is evaluated after training. After an interruption, the same command continues from the
last checkpoint and with the unfinished jobs. `sweep.rerun=true` trains all jobs again. Further options of Hydra:
--info, --resolve, --hydra-help.
"""

import sys
from collections.abc import Sequence

from .config.call import OVERRIDES, parse_call, stage_sections
from .config.compose import compose
from .core import provenance
from .core.exits import command
from .core.paths import PREPARED, RESULTS, main_root
from .core.signals import end_on_signals
from .data.dataset import Dataset
from .ranks.entry import enter
from .tracking.store import ensure_store
from .training.context import open_training
from .training.loop import train
from .training.spec import RunSpec

stage_sections("train", "framework", "model", "train", "seeds", "tracking")


@command
def main(arguments: Sequence[str]) -> None:
    """Run the DVC stage from a snapshot (`--params`), else the Hydra application."""
    end_on_signals()
    provenance.remember_command("train", arguments)
    arguments = enter(arguments, _check)
    if set(arguments) & {"-h", "--help"}:
        print(f"usage: python -m pipeline.train [-m] [key=value ...]\n\n{__doc__}\n{OVERRIDES}")
    elif any(argument.split("=")[0] == "--params" for argument in arguments):
        train_stage(arguments)
    else:
        from .sweeps.app import hydra_app  # slow to import, and the stage does not need it

        hydra_app(arguments)


def _check(arguments: Sequence[str]) -> None:
    """Raise `UserError` if the configuration is not valid."""
    if any(argument.split("=")[0] == "--params" for argument in arguments):
        parse_call("train", arguments, __doc__)
    elif not any(argument.startswith("-") for argument in arguments):  # else an option of Hydra's, as --cfg
        compose([argument for argument in arguments if not argument.lstrip("+~").startswith("hydra.")])


def train_stage(arguments: Sequence[str]) -> None:
    """Train every seed into `results/<framework>`."""
    call = parse_call("train", arguments, __doc__)
    config = call.config
    ensure_store(main_root())
    output = RESULTS / config.framework
    output.mkdir(parents=True, exist_ok=True)
    spec = RunSpec.of(config, dataset=Dataset.open(PREPARED), output=output, snapshot=call.text)
    with open_training(spec) as context:
        train(context)
        context.complete()


if __name__ == "__main__":
    main(sys.argv[1:])
