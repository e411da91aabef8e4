"""What the measurement of speed came to: `speed.json`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..core.errors import UserError
from ..core.files import read_json, write_json
from .summary import Ratio

Round = dict[str, dict[str, list[float]]]
"""Seconds by kind and framework: one value for the block, or for `latency` one per call."""


class ArmSpeed(BaseModel):
    """The measured speed of one framework."""

    model_config = ConfigDict(frozen=True)

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


class SpeedResult(BaseModel):
    """The content of `speed.json`: the speed of each framework, and its ratio to the reference."""

    model_config = ConfigDict(frozen=True)

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

    @classmethod
    def read(cls, path: Path) -> "SpeedResult":
        """Read what `write` wrote. Raises `UserError` naming the file if it is missing or cannot be read."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise UserError(f"{path}: cannot be read ({error.errors()[0]['msg']}); run `dvc repro speed`") from error

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump())
