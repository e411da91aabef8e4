"""What a training that is part of a trial reports after every epoch, and whether it goes on."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from ..config.schema.search import TRIAL
from ..config.schema.section import Section
from ..core.errors import PrunedError, UserError
from ..core.files import read_text, write_json, write_text
from .record import SearchRecord
from .study import Study

_TRIAL: Final = "trial.json"
_ENDED: Final = "ended.json"


class TrialPart(Section):
    """The part of a trial that a training is (`trial.json` in its folder): one framework at the trial's point."""

    search: str
    """Folder of the search."""
    number: int
    position: int
    """Position of the framework among those that the trial trains, in their order: 0, 1, ...."""
    epochs: int
    """Number of epochs of the framework, over all seeds."""
    point: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write `trial.json`."""
        write_text(folder / _TRIAL, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "TrialPart | None":
        """Return which part of a trial the training in this folder is; None: it is none. Raises `UserError`."""
        path = folder / _TRIAL
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(read_text(path))
        except ValidationError as error:
            raise UserError(f"{path}: cannot be read ({error}); start the search again") from error


class Ended(Section):
    """How a part of a trial ended (`ended.json`); a killed or failed one has not."""

    state: Literal["complete", "pruned", "diverged"]
    reason: str
    epochs: int
    """Number of epochs, over all seeds, that it was trained for."""

    def write(self, folder: Path) -> None:
        """Write `ended.json` atomically."""
        write_json(folder / _ENDED, self.model_dump())

    @classmethod
    def read(cls, folder: Path) -> "Ended | None":
        """Return how the training in this folder ended; None: it has not."""
        path = folder / _ENDED
        return cls.model_validate_json(read_text(path)) if path.exists() else None


class Reporter:
    """Reports a training to the study of its trial."""

    def __init__(self, part: TrialPart, folder: Path, seeds: Sequence[int], epochs: int) -> None:
        self._part, self._folder, self._seeds, self._epochs = part, folder, list(seeds), epochs
        self._trained = 0

    @classmethod
    def of(cls, folder: Path, seeds: Sequence[int], epochs: int) -> "Reporter | None":
        """Return the reporter of the training in this folder; None: it is no part of a trial."""
        part = TrialPart.read(folder)
        return cls(part, folder, seeds, epochs) if part else None

    @property
    def tags(self) -> Mapping[str, str | int]:
        """The tags of its runs."""
        return {TRIAL: self._part.number} | {f"search.{k}": v for k, v in self._part.point.items()}

    def epoch(self, seed: int, epoch: int, accuracy: float) -> None:
        """Report the validation accuracy after an epoch (1, 2, ...). Raises `PrunedError` if the trial ends here."""
        trained = self._trained = self._seeds.index(seed) * self._epochs + epoch
        step = self._part.position * self._part.epochs + trained
        if self._study.report(self._part.number, step, accuracy):
            reason = f"pruned after epoch {epoch} of seed {seed}: validation accuracy {accuracy:.4f}"
            Ended(state="pruned", reason=reason, epochs=trained).write(self._folder)
            raise PrunedError(f"trial {self._part.number} is {reason}")

    def diverged(self, reason: str) -> None:
        """Note that the training has diverged: the point is a bad one, and no failure of the search."""
        Ended(state="diverged", reason=reason, epochs=self._trained + 1).write(self._folder)

    @cached_property
    def _study(self) -> Study:
        folder = Path(self._part.search)
        return Study(folder, SearchRecord.read(folder), self._part.number)
