"""What draws the points of a search: Optuna's samplers, without a point that is there already."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import optuna
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from ..config.schema.search import QmcConfig, SearchConfig, TpeConfig
from .space import Dimension, Space, Value

_ATTEMPTS: Final = 20
"""How often a sampler may draw a point that is there, before one of those that are left is drawn at random."""
_MOST_LISTED: Final = 10_000
"""Points of a space that are listed to find those that are left; in a larger one a point may be repeated."""


class WithoutRepetition(BaseSampler):
    """Draws a whole point by another sampler, again if an earlier trial has it.

    A point trained twice tells nothing new, as training is deterministic. Where all points of the space are there, it
    repeats them.
    """

    def __init__(self, sampler: BaseSampler, space: Space, seed: int) -> None:
        self._sampler, self._space, self._generator = sampler, space, np.random.default_rng(seed)
        self._distributions = {each.key: distribution(each) for each in space.dimensions}

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, Any]:
        """Return the whole space, so that every point is drawn at once."""
        return self._distributions

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Draw a point."""
        others = (other for other in study.get_trials(deepcopy=False) if other.number != trial.number)
        taken = {self._place(other.params) for other in others if len(other.params) == len(self._distributions)}
        size = self._space.size
        for _ in range(_ATTEMPTS):
            point = self._draw(study, trial)
            if self._place(point) not in taken or len(taken) == size:
                return point
        if size is None or size > _MOST_LISTED:
            return point
        left = [each for each in self._space.points() if self._place(each) not in taken]
        return left[self._generator.integers(len(left))]

    def sample_independent(self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """Draw a value by itself, as of a trial that was killed while its point was written."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Any, trial: FrozenTrial) -> None:
        """See Optuna."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Any, trial: FrozenTrial, state: Any, values: Any) -> None:
        """See Optuna."""
        self._sampler.after_trial(study, trial, state, values)

    def _draw(self, study: Any, trial: FrozenTrial) -> dict[str, Any]:
        together = self._sampler.infer_relative_search_space(study, trial)
        point = self._sampler.sample_relative(study, trial, together)
        for key, values in self._distributions.items():
            if key not in point:
                point[key] = self._sampler.sample_independent(study, trial, key, values)
        return point

    def _place(self, point: Mapping[str, Any]) -> tuple[Any, ...]:
        values = (point[key] for key in self._distributions)
        return tuple(f"{value:.12g}" if isinstance(value, float) else value for value in values)


def create(settings: SearchConfig, space: Space, seed: int) -> BaseSampler:
    """Return the sampler of `search.sampler`."""
    return WithoutRepetition(_chosen(settings, seed), space, seed)


def _chosen(settings: SearchConfig, seed: int) -> BaseSampler:
    sampler = settings.sampler
    if isinstance(sampler, TpeConfig):
        return TPESampler(seed=seed, n_startup_trials=sampler.startup_trials, multivariate=sampler.multivariate)
    if isinstance(sampler, QmcConfig):
        return QMCSampler(
            scramble=sampler.scramble,
            seed=seed,
            independent_sampler=RandomSampler(seed=seed),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
    return RandomSampler(seed=seed)


def distribution(dimension: Dimension) -> Any:
    """Return a dimension as Optuna has it."""
    if dimension.kind == "choice":
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    whole = dimension.kind == "int"
    kind: Any = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    step = {"step": dimension.step} if dimension.step else {}
    return kind(dimension.low, dimension.high, log=dimension.log, **step)


def suggest(trial: Any, dimension: Dimension) -> Value:
    """Have a trial take its value of a dimension, and return it."""
    if dimension.kind == "choice":
        return str(trial.suggest_categorical(dimension.key, dimension.choices))
    whole = dimension.kind == "int"
    step = {"step": dimension.step} if dimension.step else {}
    take = trial.suggest_int if whole else trial.suggest_float
    value: int | float = take(dimension.key, dimension.low, dimension.high, log=dimension.log, **step)
    return value
