"""The trials of a search in Optuna's storage: one is there for each point before the first is trained.

A trial has the number of its job. It waits until its turn comes, then draws its point by all results so far (TPE), or
has had its point from the beginning (random, QMC). It ends *complete*, *pruned*, or *failed* if its point is no valid
configuration. A trial that was killed stays *running*, at its point and number, until it is trained to its end.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ..config.labels import short_label
from ..config.schema.search import HyperbandConfig, MedianPrunerConfig, SearchConfig, TpeConfig
from ..core.errors import UserError
from ..core.files import write_bytes
from .record import SearchRecord
from .space import Space, Value

JOURNAL: Final = "study.log"
State = Literal["waiting", "running", "complete", "pruned", "failed"]
_ACCURACY, _LOSS, _EPOCHS, _REASON = "accuracy.", "loss.", "epochs.", "reason"


@dataclass(frozen=True)
class Trial:
    """A trial as the storage has it."""

    number: int
    state: State
    point: Mapping[str, Value]
    """By key; empty: not drawn yet."""
    value: float | None
    """Mean validation accuracy over the frameworks; None: not complete."""
    accuracy: Mapping[str, float]
    """Validation accuracy after the last epoch by framework, of those that were trained to their end."""
    loss: Mapping[str, float]
    """Validation loss likewise."""
    epochs: Mapping[str, int]
    """Number of epochs, over all seeds, that each framework was trained for."""
    reason: str
    """Why it was pruned or failed; empty: neither."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state not in ("waiting", "running")

    @property
    def label(self) -> str:
        """Its point in short, see `labels.short_label`, numbers with three digits."""
        return short_label({key: short(value) for key, value in self.point.items()})


def short(value: Value) -> str:
    """Format a value of a point."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Study:
    """The study of a search; `number`: the trial that draws its point by it, if any.

    Raises `UserError` if the storage does not answer.
    """

    def __init__(self, folder: Path, record: SearchRecord, number: int = 0) -> None:
        optuna, settings = _optuna(), record.settings
        from . import sampler

        self._record, self._folder = record, folder
        try:
            self._storage = _storage(optuna, folder, settings.storage)
            # a sampler made anew with one seed would draw the same point for every trial
            drawing = sampler.create(settings, record.space, (settings.seed + number) % 2**32)
            pruner = _pruner(optuna, settings, record.steps)
            self.optuna = optuna.create_study(
                study_name=record.name,
                storage=self._storage,
                sampler=drawing,
                pruner=pruner,
                direction="maximize",
                load_if_exists=True,
            )
            """Optuna's own study, for its pictures and importances."""
            self._id = self._storage.get_study_id_from_name(record.name)
        except UserError:
            raise
        except Exception as error:
            where = settings.storage or folder / JOURNAL
            if isinstance(error, ImportError):
                driver = "a driver, as psycopg2-binary is for PostgreSQL: uv pip install psycopg2-binary"
                raise UserError(f"search.storage = {where}: needs {driver}") from error
            line = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UserError(f"search.storage = {where}: cannot be used: {line}") from error

    def prepare(self) -> None:
        """Add trials that wait, until there are `search.trials` of them."""
        count, total = len(self.optuna.get_trials(deepcopy=False)), self._record.settings.trials
        points = drawn_before(self._record.space, self._record.settings, total)
        for point in points[count:]:
            self.optuna.enqueue_trial(point)

    def trials(self) -> list[Trial]:
        """Return all trials by number."""
        return [self._read(trial) for trial in self.optuna.get_trials(deepcopy=False)]

    def trial(self, number: int) -> Trial:
        """Return one trial."""
        return self._read(self._storage.get_trial(self._trial_id(number)))

    def draw(self, number: int) -> Trial:
        """Take a waiting trial, and draw its point; one that runs keeps what it has drawn."""
        from .sampler import suggest

        optuna, trial_id = _optuna(), self._trial_id(number)
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another process has just ended it
            self._storage.set_trial_state_values(trial_id, state=optuna.trial.TrialState.RUNNING)
            trial = optuna.trial.Trial(self.optuna, trial_id)
            for dimension in self._record.space.dimensions:
                suggest(trial, dimension)
        return self.trial(number)

    def report(self, number: int, step: int, value: float) -> bool:
        """Store the value of an epoch, `step` (1, 2, ...) in the whole trial; return whether to end the trial."""
        trial_id = self._trial_id(number)
        self._storage.set_trial_intermediate_value(trial_id, step, value)
        return bool(self.optuna.pruner.prune(self.optuna, self._storage.get_trial(trial_id)))

    def note(self, number: int, framework: str, *, epochs: int, scores: tuple[float, float] | None = None) -> None:
        """Store for how many epochs a framework was trained, and its accuracy and loss if that was to its end."""
        values: dict[str, float] = {f"{_EPOCHS}{framework}": epochs}
        if scores:
            values |= {f"{_ACCURACY}{framework}": scores[0], f"{_LOSS}{framework}": scores[1]}
        for key, value in values.items():
            self._storage.set_trial_user_attr(self._trial_id(number), key, value)

    def end(self, number: int, value: float | None = None, *, pruned: str = "", failed: str = "") -> None:
        """End a trial with its value, or say why it was pruned or failed."""
        states = _optuna().trial.TrialState
        if reason := pruned or failed:
            self._storage.set_trial_user_attr(self._trial_id(number), _REASON, reason)
            self.optuna.tell(number, state=states.PRUNED if pruned else states.FAIL)
        else:
            self.optuna.tell(number, value)

    def importances(self, framework: str) -> dict[str, float]:
        """Return the importance of each key for a framework's accuracy, in [0, 1]; empty if too few are complete.

        PED-ANOVA (Watanabe et al. 2023): how far the best tenth of the trials keeps to a part of a key's values.
        """
        optuna = _optuna()
        complete = [trial for trial in self.trials() if trial.state == "complete" and framework in trial.accuracy]
        if len(complete) < 4 or len({trial.accuracy[framework] for trial in complete}) == 1:
            return {}

        def target(trial: Any) -> float:  # the smaller, the better
            return -float(trial.user_attrs[f"{_ACCURACY}{framework}"])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the target must be one whose small values are good
            found = optuna.importance.get_param_importances(self.optuna, target=target)
        return {key: float(value) for key, value in found.items()}

    def _trial_id(self, number: int) -> int:
        return int(self._storage.get_trial_id_from_study_id_trial_number(self._id, number))

    def _read(self, trial: Any) -> Trial:
        kept = trial.user_attrs
        of = {prefix: _below(kept, prefix) for prefix in (_ACCURACY, _LOSS, _EPOCHS)}
        state: State = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned"}.get(
            trial.state.name,
            "failed",
        )  # type: ignore[assignment]
        keys = [dimension.key for dimension in self._record.space.dimensions]
        point = {key: trial.params[key] for key in keys if key in trial.params}
        value = trial.value if state == "complete" else None
        return Trial(
            trial.number, state, point, value, of[_ACCURACY], of[_LOSS], of[_EPOCHS], str(kept.get(_REASON, ""))
        )


def drawn_before(space: Space, settings: SearchConfig, total: int) -> list[dict[str, Value]]:
    """Return the points that are drawn before the first result; empty ones if each is drawn by the results (TPE).

    The first n of them are the same whatever the total.
    """
    if isinstance(settings.sampler, TpeConfig):
        return [{} for _ in range(total)]
    optuna = _optuna()
    from . import sampler

    scratch = optuna.create_study(sampler=sampler.create(settings, space, settings.seed), direction="maximize")
    points: list[dict[str, Value]] = []
    for _ in range(total):
        trial = scratch.ask({each.key: sampler.distribution(each) for each in space.dimensions})
        points.append(trial.params)
        scratch.tell(trial, 0.0)
    return points


def mend(folder: Path) -> None:
    """Cut off a line of the study's file that a crash of the machine left unfinished: no later one could be read."""
    path = folder / JOURNAL
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        write_bytes(path, content[: content.rfind(b"\n") + 1])


def _optuna() -> Any:
    """Import Optuna, which takes half a second: only a search pays for it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _storage(optuna: Any, folder: Path, url: str | None) -> Any:
    if url:
        _require_own_database(url)
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.storages.JournalStorage(backend)


def _require_own_database(url: str) -> None:
    """Raise `UserError` for a database of something else: Optuna would make its tables there, and then refuse it."""
    from sqlalchemy import create_engine, inspect

    engine = create_engine(url)
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if "alembic_version" in tables and "studies" not in tables:
        raise UserError(f"search.storage = {url}: has the tables of something else; allowed: a database of its own")


def _pruner(optuna: Any, settings: SearchConfig, steps: int) -> Any:
    pruner, pruners = settings.pruner, optuna.pruners
    if isinstance(pruner, MedianPrunerConfig):
        first = pruner.warmup_steps + 1  # Optuna counts steps from 0
        return pruners.MedianPruner(n_startup_trials=pruner.startup_trials, n_warmup_steps=first)
    if isinstance(pruner, HyperbandConfig):
        return pruners.HyperbandPruner(pruner.min_resource, steps, pruner.reduction_factor)
    return pruners.NopPruner()


def _below(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def ranked(trials: Sequence[Trial], framework: str | None = None) -> list[Trial]:
    """Return the complete trials by falling accuracy of a framework, None: of their mean; then by rising loss.

    Of those that are alike, the earliest comes first.
    """
    complete = (trial for trial in trials if trial.state == "complete")
    return sorted(complete, key=lambda trial: (*_order(trial, framework), trial.number))


def ranks(trials: Sequence[Trial]) -> list[tuple[str, Trial]]:
    """Return the complete trials by the mean with their places: 1, 2, ...; equal ones as `2=`."""
    best = ranked(trials)
    orders = [_order(trial, None) for trial in best]
    places = {order: orders.index(order) + 1 for order in orders}
    return [
        (f"{places[order]}{'=' if orders.count(order) > 1 else ''}", trial)
        for order, trial in zip(orders, best, strict=True)
    ]


def _order(trial: Trial, framework: str | None) -> tuple[float, float]:
    """Return a trial's place, to four decimals: frameworks that compute the same differ by rounding."""
    if framework:
        return -round(trial.accuracy[framework], 4), round(trial.loss[framework], 4)
    return -round(trial.value or 0.0, 4), round(sum(trial.loss.values()), 4)
