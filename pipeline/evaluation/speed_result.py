"""What the measurement of speed came to: `speed.json`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.records import Record
from .summary import Ratio

Round = dict[str, dict[str, list[float]]]
"""Seconds by kind and framework: one value for the block, or for `latency` one per call."""


class ArmSpeed(Record):
    """The measured speed of one framework."""

    training_images_per_second: float
    """Median over the rounds of all restarts."""
    inference_images_per_second: float
    """Median over the rounds of all restarts, in batches of `Classifier.predict_batch`."""
    latency_p50_milliseconds: float
    """Median time of one image, from array to array, over all calls."""
    latency_p95_milliseconds: float
    """95th percentile of the same."""
    idle_cpu_share: float
    """CPU time that it used while others computed, as a share of one core."""
    batch_size: int
    """Images per training step."""
    compile_seconds: float
    """In the last restart: the processes of the next one start while those of the others compile."""
    warm_up_seconds: float
    execution: str
    """`eager`, `graph` or `compiled`."""
    device: str
    """The GPU's name, or `cpu`."""
    threads: int
    """Threads that its operators may use."""
    cpus: int
    """CPUs that its process may use."""
    world: int = 1
    """Number of ranks that trained."""
    alone_images_per_second: float | None = None
    """The training speed of one process that takes turns with the ranks, median as above; None: one rank."""
    efficiency: Ratio | None = None
    """Training speed of all ranks over `world` times that of one process, over the restarts; None: one rank."""


class SpeedResult(Record):
    """The content of `speed.json`: the speed of each framework, and its ratio to the reference."""

    settings: dict[str, dict[str, Any]]
    """The sections `model` and `train` of the configuration, and `data` as `Dataset.identity`."""
    reference: str
    """Name of the framework that the others are compared with."""
    arms: dict[str, ArmSpeed]
    """By framework, the reference included."""
    ratios: dict[str, dict[str, Ratio]]
    """The arm's seconds over the reference's, by arm and kind: above 1, the reference is faster. Over the restarts."""
    by_restart: dict[str, dict[str, list[float]]]
    """The same ratio in each restart, by arm and kind: geometric mean of its rounds."""
    blocks: dict[str, int]
    """Size of a block by kind: training steps, images, calls."""
    units: dict[str, str]
    """What is counted per second, by kind."""
    restarts: list[list[Round]]
    """The rounds of each restart, for which all processes were started anew."""
    others_cpu_share: float
    """CPU time that other programs used meanwhile, as a share of all cores, in [0, 1]."""


def round_ratio(row: Round, kind: str, arm: str, reference: str) -> float:
    """Return the arm's seconds over the reference's in one round; `latency`: of the median calls."""
    return float(np.median(row[kind][arm]) / np.median(row[kind][reference]))  # single calls are easily interrupted


def mean_ratio(rounds: Sequence[Round], kind: str, arm: str, reference: str) -> float:
    """Return the geometric mean of `round_ratio` over the rounds of one restart."""
    return float(np.exp(np.mean([np.log(round_ratio(row, kind, arm, reference)) for row in rounds])))
