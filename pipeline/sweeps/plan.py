"""The jobs of a sweep: expanded, composed and checked once, before the first is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hydra.errors import HydraException

from ..config import hydra_compat
from ..config.compose import compose, one_message
from ..config.schema.whole import Config
from ..core.errors import UserError
from ..core.paths import main_root
from ..data.cache import obtain
from ..data.plan import require_visible
from ..models.architecture import Architecture
from . import cache

_UNLABELLED: Final = ("framework", "seeds")


@dataclass(frozen=True)
class SweepJob:
    """One combination of a sweep's values."""

    number: int
    """Position in the sweep: 0, 1, ...; also the name of the job's folder."""
    overrides: tuple[str, ...]
    config: Config
    key: str
    """See `cache.key_of`."""
    varied: Mapping[str, str]
    """This job's value of each key that differs between jobs, as in the overrides; without framework and seeds."""

    @property
    def label(self) -> str:
        """The values of `varied`, separated by spaces."""
        return " ".join(self.varied.values())


def plan_jobs(overrides: Sequence[str]) -> list[SweepJob]:
    """Expand the overrides as Hydra's basic sweeper does; compose and check each job.

    Raises `UserError` for an invalid override, or a job whose configuration is invalid.
    """
    try:
        combinations = hydra_compat.expand(overrides)
    except HydraException as error:
        raise UserError(one_message(error)) from error
    varying = {
        override.split("=", 1)[0]
        for combination in combinations
        for override in combination
        if any(override not in other for other in combinations)
    }
    return [plan_job(number, combination, varying) for number, combination in enumerate(combinations)]


def plan_job(number: int, overrides: Sequence[str], varying: set[str]) -> SweepJob:
    """Compose and check one job; `varying`: keys whose values differ between jobs. Raises `UserError`."""
    config = compose(overrides)
    pairs = (override.split("=", 1) for override in overrides)
    shown = {key: value for key, value in pairs if key in varying and key not in _UNLABELLED}
    return SweepJob(number, tuple(overrides), config, check(config), shown)


def check(config: Config) -> str:
    """Return the key of a job, see `cache.key_of`. Prepares its data if the cache lacks them.

    Raises `UserError` if the network or the augmentation does not fit the data.
    """
    dataset = obtain(config.data, main_root())
    Architecture.of(config.model, dataset)
    require_visible(config.train.augment, dataset.image_shape)
    return cache.key_of(config, dataset)
