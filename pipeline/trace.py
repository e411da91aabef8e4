"""Trace the computation of one framework, step by step, as evidence for `parity` (stages `trace@...`).

  python -m pipeline.trace framework=tensorflow model=lenet5 train/optimizer=nesterov

Takes the same optimiser steps in float64 and in float32, and writes batches, gradients, losses and weights to
`results/<framework>/trace`. There it replaces the trace of the DVC stage until the next `dvc repro`.
"""

import sys
from collections.abc import Sequence

from .config.call import parse_call, stage_sections
from .core.exits import command
from .core.paths import PREPARED, RESULTS, main_root
from .core.signals import end_on_signals
from .data.cache import obtain
from .data.dataset import Dataset
from .equality.trace import Evidence, gather
from .models.architecture import Architecture
from .models.device import require_device

stage_sections("trace", "framework", "model", "train", "trace")


@command
def main(arguments: Sequence[str]) -> None:
    """Trace on the prepared data (`--params`), or under any configuration."""
    end_on_signals()
    call = parse_call("trace", arguments, __doc__, output=True)
    config = call.config
    require_device(config.train, config.framework)
    dataset = Dataset.open(PREPARED) if call.snapshot else obtain(config.data, main_root())
    architecture = Architecture.of(config.model, dataset)
    evidence = Evidence(config.framework, architecture, config.train, config.trace, dataset)
    gather(evidence, call.output or RESULTS / config.framework / "trace")


if __name__ == "__main__":
    main(sys.argv[1:])
