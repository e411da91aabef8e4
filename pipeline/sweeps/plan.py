"""The jobs of a sweep: expanded, composed and checked once, before the first is trained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from ..config import hydra_compat
from ..config.compose import CONF, compose_job, readable_errors
from ..config.composer import ComposedJob, Composer
from ..config.hydra_compat import Source
from ..config.labels import short_label
from ..config.schema.whole import Config
from ..core import frameworks
from ..core.errors import UserError
from ..core.paths import main_root
from ..data.cache import obtain
from ..data.dataset import Dataset
from ..data.plan import require_visible
from ..models.architecture import Architecture
from ..training.spec import SweepMembership
from . import cache
from .folders import path_of

_UNLABELLED: Final = ("framework", "seeds")


@dataclass(frozen=True)
class SweepJob:
    """One combination of a sweep's values."""

    number: int
    """Position in the sweep: 0, 1, ...."""
    overrides: tuple[str, ...]
    config: Config
    key: str
    """See `cache.key_of`."""
    varied: Mapping[str, str]
    """This job's value of each key that differs between jobs, as in the overrides; without framework and seeds."""
    folder: Path
    """Its folder, relative to that of the sweep: `hydra.sweep.subdir`, which is its number unless it was changed."""
    fixed: bool = False
    """See `ComposedJob.fixed`."""

    @property
    def label(self) -> str:
        """What tells it from the others in short, see `labels.short_label`."""
        return short_label(self.varied)

    @cached_property
    def owner(self) -> str:
        """See `cache.owner_of`."""
        return cache.owner_of(self.config)

    def membership(self, sweep: str, parent: str) -> SweepMembership:
        """Return what `job.json` holds. `sweep`: the sweep's name. `parent`: reference of its run."""
        values = " ".join(f"{key}={value}" for key, value in self.varied.items())
        return SweepMembership(sweep, parent, self.number, self.label, self.key, values)


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep was asked for: the overrides of its jobs, and what they have in common."""

    combinations: Sequence[Sequence[str]]
    hydra: Sequence[str] = ()
    """Overrides of Hydra's own settings."""
    source: Source = field(default_factory=Source)
    threads: int | None = None
    """`train.threads` of the jobs that leave it null, see `capacity`."""

    @cached_property
    def varying(self) -> set[str]:
        """The keys whose values differ between jobs."""
        common = set.intersection(*(set(combination) for combination in self.combinations))
        return {
            each.split("=", 1)[0] for combination in self.combinations for each in combination if each not in common
        }

    def jobs(self) -> list[SweepJob]:
        """Compose and check each job. Raises `UserError` if one is invalid, or if two would share a folder."""
        if own := sorted(key for key in self.varying if key.lstrip("+~").startswith("sweep.")):
            raise UserError(f"{own[0]}: several values; allowed: one, as it is of the whole sweep and of no job")
        composer, data = Composer(self.source), PreparedData()
        jobs: list[SweepJob] = []
        for number, overrides in enumerate(self.combinations):
            job = composer.compose([*self.hydra, *overrides], number)
            jobs.append(self._job(number, overrides, job, data))
        chosen = Counter(job.folder for job in jobs)
        if shared := [job for job in jobs if chosen[job.folder] > 1]:
            raise UserError(
                f"hydra.sweep.subdir = {shared[0].folder}: the folder of {len(shared)} jobs; every job needs its own, "
                "as ${hydra.job.num} gives it"
            )
        return jobs

    def job(self, number: int, overrides: Sequence[str], config: Config | None = None) -> SweepJob:
        """Compose and check one job; `config`: what Hydra composed for it. Raises `UserError`."""
        composed, folders = compose_job([*self.hydra, *overrides], self.source, number)
        composed_job = ComposedJob(config or composed, folders["sweep.subdir"], fixed=False)
        return self._job(number, overrides, composed_job, PreparedData())

    def _job(self, number: int, overrides: Sequence[str], job: ComposedJob, data: "PreparedData") -> SweepJob:
        config = job.config
        if self.threads is not None and config.train.threads is None:
            config = config.model_copy(update={"train": config.train.model_copy(update={"threads": self.threads})})
            overrides = (*overrides, f"train.threads={self.threads}")
        pairs = (override.split("=", 1) for override in overrides)
        shown = {key: value for key, value in pairs if key in self.varying and key not in _UNLABELLED}
        folder = path_of("hydra.sweep.subdir", job.subdir, below=True)
        return SweepJob(number, tuple(overrides), config, data.check(config), shown, folder, job.fixed)


def expand(overrides: Sequence[str], source: Source) -> list[list[str]]:
    """Expand the overrides of a sweep as Hydra's basic sweeper does. Raises `UserError` for a malformed override."""
    with readable_errors(overrides), hydra_compat.started(CONF, source) as hydra:
        return hydra_compat.expand(hydra, overrides)


def check(config: Config) -> str:
    """Return the key of a job, see `PreparedData.check`."""
    return PreparedData().check(config)


class PreparedData:
    """The prepared data of several jobs, each obtained once."""

    def __init__(self) -> None:
        self._obtained: dict[str, Dataset] = {}

    def check(self, config: Config) -> str:
        """Return the key of a job, see `cache.key_of`. Prepares its data if the cache lacks them.

        Raises `UserError` if the network or the augmentation does not fit the data, or the framework cannot do it.
        """
        frameworks.require_execution(config.framework, config.train.execution, "gpu")  # the device may be elsewhere
        name = repr(config.data)
        if name not in self._obtained:
            self._obtained[name] = obtain(config.data, main_root())
        dataset = self._obtained[name]
        Architecture.of(config.model, dataset)
        require_visible(config.train.augment, dataset.image_shape)
        return cache.key_of(config, dataset)
