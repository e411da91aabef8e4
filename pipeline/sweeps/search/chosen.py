"""The points that a search chose, on validation alone, and their training with fresh seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...core.paths import main_root
from ...data.cache import obtain
from ...search.record import SearchRecord
from ...search.study import Study, Trial, ranked
from ...training.spec import SweepMembership
from .. import cache
from ..pool import Train
from .trial import config_of, prepare_folder, turn_of

FOLDER: Final = "chosen"


@dataclass(frozen=True)
class Chosen:
    """The best of all complete trials."""

    common: Trial
    """By the mean over the frameworks."""
    own: Mapping[str, Trial]
    """By the framework's own accuracy."""

    @property
    def agree(self) -> bool:
        """Whether every framework is best at the same point."""
        return len({trial.number for trial in self.own.values()}) == 1

    @property
    def jobs(self) -> list[tuple[int, str]]:
        """What is trained again: number of the trial, framework."""
        common = [(self.common.number, name) for name in self.own]
        return list(dict.fromkeys([*common, *((trial.number, name) for name, trial in self.own.items())]))


def choose(record: SearchRecord, trials: Sequence[Trial]) -> Chosen | None:
    """Choose the points; None: no trial is complete."""
    names = record.space.frameworks
    return Chosen(common[0], {name: ranked(trials, name)[0] for name in names}) if (common := ranked(trials)) else None


def home(record: SearchRecord, number: int) -> Path:
    """Return the folder, relative to that of the search, with the results of a chosen point, by framework.

    It is named by the fresh seeds, so that other seeds leave these results as they are.
    """
    seeds = "-".join(map(str, record.settings.fresh_seeds))
    return Path(FOLDER) / (f"seeds_{seeds}" if len(seeds) <= 60 else f"seeds_{cache.digest_of(seeds)}") / str(number)


def open_jobs(folder: Path, record: SearchRecord, chosen: Chosen) -> Iterator[Path]:
    """Yield the folder, relative to that of the search, of every chosen point that is still to be trained again."""
    points = {trial.number: trial for trial in (chosen.common, *chosen.own.values())}
    for number, name in chosen.jobs:
        path = home(record, number) / name
        if not _is_done(folder / path, _key(record, points[number], name)):
            yield path


def run_chosen(folder: Path, path: Path, train: Train) -> None:
    """Train a chosen point in one framework with fresh seeds, and evaluate it; `path`: see `open_jobs`."""
    record, number, name = SearchRecord.read(folder), int(path.parent.name), path.name
    with turn_of(folder / path, str(path)):
        trial = Study(folder, record).trial(number)
        key = _key(record, trial, name)
        if _is_done(folder / path, key):
            return
        prepare_folder(folder / path, SweepMembership(record.name, record.parent, number, f"chosen {trial.label}", key))
        train(config_of(record, trial.point, name, record.settings.fresh_seeds), folder / path)


def _key(record: SearchRecord, trial: Trial, framework: str) -> str:
    config = config_of(record, trial.point, framework, record.settings.fresh_seeds)
    return cache.key_of(config, obtain(config.data, main_root()))


def _is_done(folder: Path, key: str) -> bool:
    return cache.FinishedJobs(folder).find(folder, key) is not None
