"""The section `search`: how `hydra/sweeper=search` looks for the best point of a space."""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from .section import Positive, Section, Seed

TRIAL: Final = "search.trial"
"""The tag of the runs of a trial: its number."""


class TpeConfig(Section):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): each point is drawn by the results before it."""

    name: Literal["tpe"]
    startup_trials: Annotated[int, Field(ge=0)]
    """Number of first trials that are drawn at random."""
    multivariate: bool
    """Whether parameters are drawn together (Falkner et al. 2018); False: one by one."""


class QmcConfig(Section):
    """A Sobol sequence (Sobol 1967), which covers the space evenly; choices are drawn at random."""

    name: Literal["qmc"]
    scramble: bool


class RandomConfig(Section):
    """Points drawn at random, one independently of another."""

    name: Literal["random"]


class NoPrunerConfig(Section):
    """Every trial is trained to its end."""

    name: Literal["none"]


class MedianPrunerConfig(Section):
    """End a trial whose best epoch so far is below the median of the other trials at the same epoch."""

    name: Literal["median"]
    startup_trials: Annotated[int, Field(ge=0)]
    """Number of trials that must be complete before one is pruned."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Number of epochs of a trial before it may be pruned."""


class HyperbandConfig(Section):
    """Successive halving in several brackets (Li et al. 2018)."""

    name: Literal["hyperband"]
    min_resource: Positive
    """Number of epochs that every trial gets."""
    reduction_factor: Annotated[int, Field(ge=2)]
    """Of so many trials of a bracket, one goes on."""


class SearchConfig(Section):
    """A search: how many points, drawn how, ended early by whom, and judged with which seeds."""

    trials: Positive
    seed: Seed
    sampler: Annotated[TpeConfig | QmcConfig | RandomConfig, Field(discriminator="name")]
    pruner: Annotated[NoPrunerConfig | MedianPrunerConfig | HyperbandConfig, Field(discriminator="name")]
    storage: str | None
    """URL of a database; None: a file in the folder of the search."""
    fresh_seeds: Annotated[list[Seed], Field(min_length=1)]
    """Seeds under which the chosen points are trained again; they chose none of them."""
    top: Positive
    """Number of points in the table of the best."""

    @field_validator("fresh_seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"search.fresh_seeds = {seeds}: every seed must occur once")
        return seeds

    @field_validator("storage")
    @classmethod
    def _no_password(cls, storage: str | None) -> str | None:
        if storage is None:
            return None
        if not re.match(r"[\w+]+://", storage):
            raise ValueError(f"search.storage = {storage!r}: allowed: null, or a URL such as postgresql://host/name")
        try:
            password = urlsplit(storage).password
        except ValueError:
            password = "?"
        if password or "password=" in storage.lower():
            raise ValueError(
                "search.storage: has a password, which would be written into files; allowed: a URL without one, and "
                "the password where the database's client looks for it, such as PGPASSWORD or ~/.pgpass"
            )
        return storage
