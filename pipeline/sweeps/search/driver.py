"""A search from its first trial to its answer, in the process that was called."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ...config import hydra_compat
from ...config.hydra_compat import Source
from ...config.labels import parameters
from ...config.schema.search import HyperbandConfig
from ...config.schema.whole import Config
from ...core import fingerprint
from ...core.errors import UserError
from ...core.paths import main_root
from ...equality.fairness import differences, in_words
from ...search import study as studies
from ...search.record import SearchRecord
from ...search.report import Ended
from ...search.space import Space, parse
from ...search.study import Study
from ...tracking.tracker import Tracker
from .. import cache
from ..capacity import Capacity
from ..display import DONE, Display
from ..driver import Driver
from ..plan import check
from ..pool import Pool
from ..processes import LOG
from . import tasks
from .chosen import choose
from .outcome import Answer, failures_of, tell, write_answer
from .table import show
from .trial import compose_point


class Search(Driver):
    """The trials of a search, and then the jobs of the points that it chooses: its tasks."""

    def __init__(
        self, overrides: Sequence[str], hydra: Sequence[str], source: Source, framework: str, stack: ExitStack
    ) -> None:
        """Parse and check the space. `framework`: that of `conf/`; `stack`: closed when the application ends.

        Raises `UserError` if there is no space, or if a value at its edge is no valid configuration.
        """
        super().__init__(stack)
        self._shown = False
        self._waiting: list[str] = []
        self._handed_out: set[str] = set()
        if named := [override for override in hydra if override.lstrip("+").startswith("hydra.sweep.subdir=")]:
            raise UserError(f"{named[0]}: a search names the folders of its trials by their numbers; leave it out")
        space = parse(overrides, source, framework)
        first, *others = space.corners()
        with _told_of_whole_numbers(space):
            self._configs = [compose_point(space, hydra, source, first, name) for name in space.frameworks]
        _require_sensible(self._configs[0])
        self._job_keys = [check(config) for config in self._configs]
        for corner in others:
            check(compose_point(space, hydra, source, corner, space.frameworks[0]))
        config, settings = self._configs[0], self._configs[0].search
        settings = settings.model_copy(update={"trials": min(settings.trials, space.size or settings.trials)})
        self.record = SearchRecord(
            name="",
            parent="",
            space=space,
            hydra=tuple(hydra),
            config_name=source.name,
            config_dir=str(source.directory.absolute()) if source.directory else None,
            settings=settings,
            epochs=config.train.epochs * len(config.seeds),
        )
        if isinstance(pruner := config.search.pruner, HyperbandConfig) and pruner.min_resource > self.record.steps:
            raise UserError(
                f"search.pruner.min_resource = {pruner.min_resource}: a trial has {self.record.steps} epochs in all; "
                f"allowed: 1 to {self.record.steps}"
            )

    @property
    def config(self) -> Config:
        """The configuration at the first corner of the space, in the first framework."""
        return self._configs[0]

    @property
    def rerun(self) -> bool:
        """Whether a search that is there already is left alone, and a new one begun."""
        return self._configs[0].sweep.rerun

    @property
    def keys(self) -> list[str]:
        """The key of the search: a digest of all that decides its points and their results."""
        return [self._digest(self._job_keys)]

    @property
    def owners(self) -> list[str]:
        """The owner of its folder: as `keys`, without code and versions."""
        return [self._digest([cache.owner_of(config) for config in self._configs])]

    def differs_from(self, folder: Path) -> str:
        """Compare what decides the points."""
        try:
            earlier = SearchRecord.read(folder)
        except UserError:
            return ""
        there, here = (
            _deciding(of) | {"space": {each.key: each.in_words for each in of.space.dimensions}}
            for of in (earlier, self.record)
        )
        return in_words(differences(there, here))

    def handing_out(self, record: cache.SweepRecord | None, launcher: str) -> AbstractContextManager[None]:
        """Have Hydra's sweeper ask for the open tasks."""
        if record and self.rerun:
            raise UserError(f"sweep.rerun = true: {record.folder} has this search; choose another folder for a new one")
        return hydra_compat.searching(self.open_tasks)

    def _digest(self, jobs: Sequence[str]) -> str:
        return fingerprint.of_json(_deciding(self.record) | {"jobs": list(jobs)}, 16)

    def begin(self, folder: Path, name: str, overrides: Sequence[str]) -> None:
        """Open the study and the run of the search, and write `search.json`, from which every process takes part."""
        self.folder = folder
        studies.mend(folder)
        self.record = self.record.model_copy(update={"name": name})
        study = Study(folder, self.record)
        self.tracker = Tracker(self._configs[0].tracking, main_root())
        self.stack.callback(self.tracker.close)
        cache.begin(folder, name, self.keys, self.owners)
        if (trials := self.record.settings.trials) < (asked := self.config.search.trials):
            print(f"{trials} trials, not {asked}: the space has no more points", flush=True)
        if self._is_done(study):
            self.record = SearchRecord.read(folder)
            print(f"{folder}: the search is done; more search.trials go on with it", flush=True)
            return
        settings = self.record.settings
        varied = parameters([each.key for each in self.record.space.dimensions], self.config)
        params = {"overrides": list(overrides), "search": settings.model_dump()}
        self.run = self.open_run("search", name, settings.trials, varied=varied, params=params, search=True)
        self.record = self.record.model_copy(update={"parent": self.run.reference})
        study.prepare()
        self.record.write(folder)
        if finished := sum(trial.finished for trial in study.trials()):
            print(f"{finished} of {self.record.settings.trials} trials are finished", flush=True)

    def make_ready(self, capacity: Capacity, *, here: bool) -> None:
        """Make ready for the tasks; `here`: they run in this process, `capacity.jobs` at a time."""
        self.pool = self.stack.enter_context(Pool.of(capacity)) if here else None
        self._shown = not here or capacity.jobs > 1
        if self._shown and self.run:
            trials = self.record.settings.trials
            print(f"{trials} trials{capacity}; log of each: {self.folder}/<trial>/<framework>/{LOG}", flush=True)
            hydra_compat.list_no_jobs()

    @property
    def elsewhere(self) -> bool:
        """Whether a launcher's processes run the tasks."""
        return self._shown and self.pool is None

    def open_tasks(self, folder: Path) -> list[tuple[str, tuple[str, ...]]]:
        """Return what is open once all is done that was handed out, see `tasks.open_tasks`."""
        self._finish_round()
        opened = [task for task in tasks.open_tasks(folder) if task[0] not in self._handed_out]
        self._handed_out |= {path for path, _ in opened}
        if opened and self._shown:
            self.display = self.stack.enter_context(Display(self._folders([path for path, _ in opened]), _ended))
        return opened

    def take(self, settings: Any, composed: Any) -> None:
        """Do a task, or keep it until Hydra has handed out all: threads that compose would meet Hydra's state."""
        path = str(Path(settings.runtime.output_dir).relative_to(self.folder.resolve()))
        if self._shown:
            self._waiting.append(path)
        else:
            tasks.run_task(self.folder, path)

    def _finish_round(self) -> None:
        if self.pool:
            for path in self._waiting:
                self.pool.submit(partial(tasks.run_task, self.folder, path))
            self._waiting.clear()
            self.pool.wait()
        if self.display:
            self.display.close()

    def _folders(self, paths: Sequence[str]) -> dict[str, list[Path]]:
        """Return the folders in which tasks train, by their names for the user."""
        names = self.record.space.frameworks
        return {
            f"trial {path}" if path.isdigit() else path: [self.folder / path / name for name in names]
            if path.isdigit()
            else [self.folder / path]
            for path in paths
        }

    def end(self) -> bool:
        """Print, write and log what was found; return whether something is left to do, as a training failed."""
        self._finish_round()
        study = Study(self.folder, self.record)
        trials = study.trials()
        failures = failures_of(self.folder, self.record, trials)
        show(self.record, trials, failures)
        if failures or choose(self.record, trials) is None:
            return True
        if self.run:
            write_answer(self.folder, study, self.record, self._configs[0], self.run)
            self.stack.callback(self.tracker.release, self.folder / "run")
        if answer := Answer.read(self.folder):
            tell(self.folder, answer)
        self.tell_view(self.record.name)
        return False

    def _is_done(self, study: Study) -> bool:
        """Return whether an earlier process has answered the same question to its end."""
        answer, settings = Answer.read(self.folder), self.record.settings
        if answer is None or (self.folder / "run").exists():
            return False
        return settings.trials <= answer.trials == len(study.trials()) and settings.fresh_seeds == answer.fresh_seeds


def _deciding(record: SearchRecord) -> dict[str, Any]:
    """Return what decides the points of a search, beside the configuration of its jobs."""
    return {
        "space": record.space.model_dump(exclude={"fixed"}),
        "settings": record.settings.model_dump(include={"seed", "sampler", "pruner", "storage"}),
    }


def _ended(folder: Path) -> str:
    """Return how a training of a trial, or of a chosen point, ended; empty: it has not."""
    if ended := Ended.read(folder):
        return DONE if ended.state == "complete" else f"{ended.state}: {ended.reason}"
    return DONE if cache.is_marked_done(folder) else ""


@contextmanager
def _told_of_whole_numbers(space: Space) -> Iterator[None]:
    """Add to a refusal of an interval's end how to search over whole numbers: Hydra makes all intervals real."""
    try:
        yield
    except UserError as error:
        for each in space.dimensions:
            if each.kind == "float" and f"{each.key} = {each.ends[0]}: input should be a valid integer" in str(error):
                whole = f"{each.key}=int(interval({each.low:g},{each.high:g}))"
                raise UserError(f"{error}; for whole numbers, '{whole}'") from error
        raise


def _require_sensible(config: Config) -> None:
    if used := set(config.seeds) & set(config.search.fresh_seeds):
        raise UserError(
            f"search.fresh_seeds = {config.search.fresh_seeds}: {min(used)} is one of seeds = {config.seeds}, which "
            "choose the points; allowed: others"
        )
