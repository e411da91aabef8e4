"""What a training tells while it goes on: the loop knows these methods, and neither MLflow nor the terminal."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ..models.backend import EpochResult
from .checkpoint import Progress
from .results import HistoryRow, SeedResult


class SeedRecorder(Protocol):
    """Of one seed, while it is trained."""

    def steps(self, trained: EpochResult, first_step: int) -> None:
        """Record the loss of every step of an epoch, the first of which is the training's step `first_step`."""

    def epoch(self, train: HistoryRow, validation: HistoryRow, learning_rate: float) -> None:
        """Record scores and speed of an epoch; `learning_rate`: of its last step."""

    def model(self, result: SeedResult, directory: Path) -> None:
        """Record the trained network, which is saved in `directory`; note in `result` the name that it has there."""


class Recorder(Protocol):
    """Of one training, seed by seed."""

    @property
    def watched(self) -> bool:
        """Whether a person watches: whether it is worth reporting more often than is needed."""

    def training(self, images: int) -> AbstractContextManager[None]:
        """Be open while the body trains on so many images."""

    def seed(self, seed: int, run_link: Path) -> AbstractContextManager[SeedRecorder]:
        """Be open while the body trains a seed; `run_link`: where to note how a later process goes on."""

    def advance(self, images: int) -> None:
        """Count images that were trained on."""

    def continued(self, seed: int, position: Progress, images: int) -> None:
        """Say where a training that was cut short goes on, after so many images."""

    def interrupted(self, position: Progress) -> None:
        """Say where a training stands that was interrupted."""

    def results(self, results: Sequence[SeedResult]) -> None:
        """Record what all seeds came to; `training` is still open, and their files are written."""

    def finish(self, results: Sequence[SeedResult], run_links: Sequence[Path], checkpoint_seconds: float) -> None:
        """Write down where everything is, and say what it cost; `training` is closed."""

    def release(self, run_link: Path) -> None:
        """Forget what was noted there: no later process goes on with it."""
