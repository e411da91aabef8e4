"""The protocol that the training loop reports to, so that it depends on neither MLflow nor the terminal."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ..models.backend import EpochResult
from .checkpoint import Progress
from .results import HistoryRow, SeedResult


class SeedRecorder(Protocol):
    """A recorder of the training of one seed."""

    def steps(self, trained: EpochResult, first_step: int) -> None:
        """Record the loss of every step of an epoch; `first_step`: number of its first step in the training."""

    def epoch(self, train: HistoryRow, validation: HistoryRow, learning_rate: float) -> None:
        """Record scores and speed of an epoch; `learning_rate`: that of its last step."""

    def model(self, result: SeedResult, directory: Path) -> None:
        """Record the trained network, which is saved in `directory`, and set `result.model` to its name."""


class Recorder(Protocol):
    """A recorder of the training of one `RunSpec`, seed by seed."""

    @property
    def watched(self) -> bool:
        """Whether progress is shown on a terminal, so that frequent reports are worth their cost."""

    def training(self, images: int) -> AbstractContextManager[None]:
        """Record the training of all seeds while the body runs; `images`: their number in all epochs of all seeds."""

    def seed(self, seed: int, run_link: Path) -> AbstractContextManager[SeedRecorder]:
        """Record the training of one seed while the body runs; `run_link`: file that names its run for resumption."""

    def advance(self, images: int) -> None:
        """Add `images` to the progress."""

    def continued(self, seed: int, position: Progress, images: int) -> None:
        """Report where an interrupted training continues; `images`: number of images of the seed before that."""

    def interrupted(self, position: Progress) -> None:
        """Report the position at which training was interrupted."""

    def results(self, results: Sequence[SeedResult]) -> None:
        """Record the results of all seeds. Called within `training`, after the files are written."""

    def finish(self, results: Sequence[SeedResult], run_links: Sequence[Path], checkpoint_seconds: float) -> None:
        """Write references to the runs and report the costs. Called after `training` has closed."""

    def release(self, run_link: Path) -> None:
        """Delete the link to a run, which no later process resumes."""
