"""What the measurement of speed came to: `speed.json`."""

from ..core.records import Record
from .summary import Ratio

Round = dict[str, dict[str, list[float]]]
"""Seconds by kind and framework: one value for the block, or for `latency` one per call."""


class ArmSpeed(Record):
    """The measured speed of one framework."""

    training_images_per_second: float
    """Median over the rounds."""
    inference_images_per_second: float
    """Median over the rounds, in batches of 512."""
    latency_p50_milliseconds: float
    """Median time of one image, from array to array, over all calls."""
    latency_p95_milliseconds: float
    """95th percentile of the same."""
    idle_cpu_share: float
    """CPU time that it used while others computed, as a share of one core."""
    batch_size: int
    """Images per training step."""
    compile_seconds: float
    warm_up_seconds: float
    execution: str
    """`eager` or `compiled`."""
    device: str
    """The GPU's name, or `cpu`."""
    threads: int
    """Threads that its operators may use."""
    cpus: int
    """CPUs that its process may use."""


class SpeedResult(Record):
    """The content of `speed.json`: the speed of each framework, and its ratio to the reference."""

    reference: str
    """Name of the framework that the others are compared with."""
    arms: dict[str, ArmSpeed]
    """By framework, the reference included."""
    ratios: dict[str, dict[str, Ratio]]
    """The arm's seconds over the reference's, by arm and kind: above 1, the reference is faster."""
    blocks: dict[str, int]
    """Size of a block by kind: training steps, images, calls."""
    units: dict[str, str]
    """What is counted per second, by kind."""
    rounds: list[Round]
    others_cpu_share: float
    """CPU time that other programs used meanwhile, as a share of all cores, in [0, 1]."""
