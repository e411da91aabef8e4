"""What a ranking puts in order: a point is a framework and its settings, and its seeds may be in several jobs."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from ..config.schema.sweep import SortKey
from ..core import fingerprint
from ..core.errors import ResultError, UserError
from ..core.files import read_json, read_text
from ..evaluation.summary import Summary, summarise
from ..training.results import TrainingSummary, read_history
from .cache import settings_of
from .plan import SweepJob

FALLING: Final[Mapping[SortKey, bool]] = {
    "validation_accuracy": True,
    "validation_loss": False,
    "train_images_per_second": True,
}
"""The metrics of a ranking, and whether more is better. The first two also decide between equals."""
DIGITS: Final[Mapping[SortKey, int]] = {"validation_accuracy": 4, "validation_loss": 4, "train_images_per_second": 0}
"""Decimals that are shown. No others decide: two frameworks that compute the same differ in the sixth, by rounding."""


class Scores(NamedTuple):
    """What one seed of a job reached in the last epoch."""

    validation_accuracy: float
    validation_loss: float
    train_images_per_second: float
    """Over all epochs; the mean over the seeds of its job."""


@dataclass(frozen=True)
class FinishedJob:
    """A job with the scores of its seeds."""

    job: SweepJob
    seeds: Mapping[int, Scores]

    @classmethod
    def read(cls, job: SweepJob, folder: Path) -> "FinishedJob":
        """Read a job's folder. Raises `ResultError` if a file is missing or malformed."""
        again = f"delete {folder}, and run the same command again"
        try:
            speed = TrainingSummary(**read_json(folder / "summary.json", again)).train_images_per_second
            rows = [row for row in read_history(read_text(folder / "history.csv", again)) if row.split == "validation"]
            seeds = {row.seed: Scores(row.accuracy, row.loss, speed) for row in sorted(rows, key=lambda r: r.epoch)}
        except UserError as error:
            raise ResultError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(f"{folder}: the results cannot be read ({error!r}); {again}") from error
        if missing := sorted(set(job.config.seeds) - set(seeds)):
            raise ResultError(f"{folder}/history.csv: lacks the seeds {missing}; {again}")
        return cls(job, {seed: seeds[seed] for seed in job.config.seeds})


@dataclass(frozen=True)
class Point:
    """The finished jobs that differ in nothing but their seeds, with scores over these."""

    jobs: tuple[SweepJob, ...]
    scores: Mapping[SortKey, Summary]

    @classmethod
    def of(cls, finished: Sequence[FinishedJob]) -> "Point":
        """Pool at least one job. A seed that several jobs have counts once: a copy is no further measurement."""
        seeds: dict[int, Scores] = {}
        for each in finished:
            seeds = {**each.seeds, **seeds}
        scores = {name: summarise([getattr(score, name) for score in seeds.values()]) for name in FALLING}
        return cls(tuple(each.job for each in finished), scores)

    @property
    def seeds(self) -> int:
        """Number of different seeds."""
        return self.scores["validation_accuracy"].n

    def order(self, sort: SortKey) -> tuple[float, ...]:
        """Return the place in the ranking: `sort`, then accuracy, then loss, as shown. What is not finite comes last.

        Points with the same order are tied.
        """
        place = []
        for name in dict.fromkeys((sort, *list(FALLING)[:2])):
            shown = round(self.scores[name].mean, DIGITS[name])
            place.append((-shown if FALLING[name] else shown) if math.isfinite(shown) else math.inf)
        return tuple(place)


@dataclass(frozen=True)
class Ranked:
    """A point with its place."""

    rank: str
    """1, 2, ...; those of equal points are that of the first of them, with a `=`."""
    point: Point


def rank(finished: Iterable[FinishedJob], sort: SortKey) -> list[Ranked]:
    """Pool jobs into points, best first; equal points by the number of their first job, whichever ended first."""
    groups = defaultdict(list)
    for each in sorted(finished, key=lambda done: done.job.number):
        settings = settings_of(each.job.config) | {"seeds": None}
        groups[fingerprint.of_json(settings, 16), tuple(each.job.varied.items())].append(each)
    points = sorted(map(Point.of, groups.values()), key=lambda p: (p.order(sort), p.jobs[0].number))
    counts, ranked, places = Counter(point.order(sort) for point in points), [], dict[tuple[float, ...], int]()
    for place, point in enumerate(points, 1):
        order = point.order(sort)
        first = places.setdefault(order, place)
        ranked.append(Ranked(f"{first}{'=' if counts[order] > 1 else ''}", point))
    return ranked
