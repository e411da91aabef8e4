"""A search from its first trial to its answer, in the process that was called."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from ...config import hydra_compat
from ...config.hydra_compat import Source
from ...config.schema.search import HyperbandConfig
from ...config.schema.whole import Config
from ...core import fingerprint
from ...core.errors import UserError
from ...core.paths import main_root
from ...search import study as studies
from ...search.record import SearchRecord
from ...search.report import Ended
from ...search.space import Space, parse
from ...search.study import Study
from ...tracking.runs import Run
from ...tracking.tracker import Tracker
from ...tracking.views import sweep_key, sweep_tags, view_page
from .. import cache
from ..capacity import Capacity
from ..display import DONE, Display
from ..folders import without_year
from ..plan import check
from ..pool import Pool
from ..processes import LOG
from . import tasks
from .chosen import choose
from .outcome import Answer, failures_of, tell, write_answer
from .table import show
from .trial import compose_point


class Search:
    """The state of a search: `begin`, then `run_task` for each task that the launcher hands out, then `end`."""

    def __init__(
        self, overrides: Sequence[str], hydra: Sequence[str], source: Source, framework: str, stack: ExitStack
    ) -> None:
        """Parse and check the space. `framework`: that of `conf/`; `stack`: closed when the application ends.

        Raises `UserError` if there is no space, or if a value at its edge is no valid configuration.
        """
        self._stack = stack
        self.run: Run | None = None
        """The MLflow run of the search; None if all is done."""
        self._pool: Pool | None = None
        self._display: Display | None = None
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
        if space.size and space.size < settings.trials:
            print(f"{space.size} trials, not {settings.trials}: the space has no more points", flush=True)
            settings = settings.model_copy(update={"trials": space.size})
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

    def _digest(self, jobs: Sequence[str]) -> str:
        facts = {
            "space": self.record.space.model_dump(exclude={"fixed"}),
            "settings": self.record.settings.model_dump(include={"seed", "sampler", "pruner", "storage"}),
            "jobs": list(jobs),
        }
        return fingerprint.of_json(facts, 16)

    def begin(self, folder: Path, name: str, overrides: Sequence[str]) -> None:
        """Open the study and the run of the search, and write `search.json`, from which every process takes part."""
        self.folder = folder
        studies.mend(folder)
        self.record = self.record.model_copy(update={"name": name})
        study = Study(folder, self.record)
        self.tracker = Tracker(self._configs[0].tracking, main_root())
        self._stack.callback(self.tracker.close)
        cache.begin(folder, name, self.keys, self.owners)
        if self._is_done(study):
            self.record = SearchRecord.read(folder)
            print(f"{folder}: the search is done; more search.trials go on with it", flush=True)
            return
        self.run = self._open_run(overrides)
        self.record = self.record.model_copy(update={"parent": self.run.reference})
        study.prepare()
        self.record.write(folder)
        if finished := sum(trial.finished for trial in study.trials()):
            print(f"{finished} of {self.record.settings.trials} trials are finished", flush=True)

    def make_ready(self, capacity: Capacity, *, here: bool) -> None:
        """Make ready for the tasks; `here`: they run in this process, `capacity.jobs` at a time."""
        self._pool = self._stack.enter_context(Pool.of(capacity)) if here else None
        self._shown = not here or capacity.jobs > 1
        if self._shown and self.run:
            trials = self.record.settings.trials
            print(f"{trials} trials{capacity}; log of each: {self.folder}/<trial>/<framework>/{LOG}", flush=True)
            hydra_compat.list_no_jobs()

    @property
    def elsewhere(self) -> bool:
        """Whether a launcher's processes run the tasks."""
        return self._shown and self._pool is None

    def open_tasks(self, folder: Path) -> list[tuple[str, tuple[str, ...]]]:
        """Return what is open once all is done that was handed out, see `tasks.open_tasks`."""
        self._finish_round()
        opened = [task for task in tasks.open_tasks(folder) if task[0] not in self._handed_out]
        self._handed_out |= {path for path, _ in opened}
        if opened and self._shown:
            self._display = self._stack.enter_context(Display(self._folders([path for path, _ in opened]), _ended))
        return opened

    def run_task(self, path: str) -> None:
        """Do a task, or keep it until Hydra has handed out all: threads that compose would meet Hydra's state."""
        if self._shown:
            self._waiting.append(path)
        else:
            tasks.run_task(self.folder, path)

    def _finish_round(self) -> None:
        if self._pool:
            for path in self._waiting:
                self._pool.submit(partial(tasks.run_task, self.folder, path))
            self._waiting.clear()
            self._pool.wait()
        if self._display:
            self._display.close()

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
            self._stack.callback(self.tracker.release, self.folder / "run")
        if answer := Answer.read(self.folder):
            tell(self.folder, answer)
        if not self.tracker.unreachable:
            view = view_page(self.tracker.experiment_id, sweep_key(self.record.name), charts=True)
            print(f"MLflow (`make ui` serves it): {self.tracker.link(view)}")
        return False

    def _is_done(self, study: Study) -> bool:
        """Return whether an earlier process has answered the same question to its end."""
        answer, settings = Answer.read(self.folder), self.record.settings
        if answer is None or (self.folder / "run").exists():
            return False
        return settings.trials <= answer.trials == len(study.trials()) and settings.fresh_seeds == answer.fresh_seeds

    def _open_run(self, overrides: Sequence[str]) -> Run:
        link, name, space = self.folder / "run", self.record.name, self.record.space
        resumed = link.exists()
        tags = {"stage": "sweep", **sweep_tags([name]), "search": True, "sweep.jobs": self.record.settings.trials}
        run = self._stack.enter_context(self.tracker.run(f"search {without_year(name)}", tags=tags, run_link=link))
        if resumed:
            print(f"{self.folder}: goes on", flush=True)
        else:
            run.show(sweeps={name: [each.key for each in space.dimensions]})
            run.log_params({"overrides": list(overrides), "search": self.record.settings.model_dump()})
        self.tracker.drain()  # so that trials name their parent by its MLflow id
        return run


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
