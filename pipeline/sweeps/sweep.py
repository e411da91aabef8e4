"""A sweep from its first job to its ranking: finished jobs, the MLflow run, remaining jobs."""

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from ..config import hydra_compat
from ..config.compose import load, parse, write
from ..config.labels import parameters
from ..core import provenance
from ..core.errors import UserError
from ..core.files import write_json
from ..core.paths import PREPARED, main_root
from ..data.cache import obtain
from ..equality.fairness import differences, in_words
from ..tracking.reader import find_runs
from ..tracking.tracker import Tracker
from ..tracking.views import in_sweep, superseded, sweep_tags
from . import cache
from .capacity import Capacity
from .display import Display
from .driver import Driver
from .plan import SweepJob, SweepPlan
from .pool import Pool, Train
from .processes import LOG
from .ranking import FILE, Ranking
from .resend import lacks_group, parent_of, present, references_of, resend, tops_of

_RERUN = "sweep.rerun=true trains them again"


class Sweep(Driver):
    """The jobs of a sweep, each at its own configuration."""

    def __init__(self, plan: SweepPlan, stack: ExitStack) -> None:
        """See `Driver`."""
        super().__init__(stack)
        self.plan, self.jobs = plan, plan.jobs()
        self.done: dict[int, Path] = {}
        """Folders of the finished jobs, which are not trained again, by number."""
        self._lock = Lock()  # jobs end in threads of the pool

    @property
    def keys(self) -> list[str]:
        """The cache keys of all jobs."""
        return [job.key for job in self.jobs]

    @property
    def owners(self) -> list[str]:
        """The owners of all jobs, see `cache.owner_of`."""
        return [job.owner for job in self.jobs]

    @property
    def rerun(self) -> bool:
        """Whether finished jobs are trained again."""
        return self.jobs[0].config.sweep.rerun

    @property
    def elsewhere(self) -> bool:
        """Whether a launcher's processes run the jobs."""
        return self.display is not None and self.pool is None

    def differs_from(self, folder: Path) -> str:
        """Compare the first job there with the one that is most like it, and the numbers of jobs."""
        path = min(folder.glob("*/params.yaml"), default=folder / "params.yaml")
        try:
            earlier = cache.settings_of(load(path))
        except UserError:
            return ""
        found = (differences(earlier, cache.settings_of(job.config)) for job in self.jobs[:100])
        said, record = in_words(min(found, key=len)), cache.record_of(folder)
        if record and len(record.keys) != len(self.jobs):
            said = ", ".join(filter(None, (f"jobs: {len(record.keys)} and {len(self.jobs)}", said)))
        return said

    def handing_out(self, record: cache.SweepRecord | None, launcher: str) -> AbstractContextManager[None]:
        """Number the jobs as the sweep that goes on numbered them: chance (`shuffle`) may have ordered them anew."""
        order = record.order(self.keys, self.owners) if record else [*range(len(self.jobs))]
        if list(order) != [*range(len(self.jobs))]:
            self.plan = replace(self.plan, combinations=[self.plan.combinations[position] for position in order])
            self.jobs = self.plan.jobs()
        return hydra_compat.handing_out([job.overrides for job in self.jobs], self._need_not_run, launcher)

    def begin(self, folder: Path, name: str, overrides: Sequence[str]) -> None:
        """Look up finished jobs, open the sweep's run, and write `job.json` into the folder of each remaining job."""
        self.folder, self.name = folder, name
        self.tracker = Tracker(self.jobs[0].config.tracking, main_root())
        self._finished = cache.FinishedJobs(main_root())
        for job in self.jobs:
            self._look_up(job)
        known = present(self.tracker, self.done.values())
        references = {job.number: self._references(job, known) for job in self.jobs if job.number in self.done}
        lacking = [job for job in self.jobs if references.get(job.number) == []]
        here = [number for number, path in self.done.items() if path == self._folder_of(self.jobs[number])]
        without_group = [n for n, runs in references.items() if lacks_group(self.tracker, self.done[n], runs, known)]
        if without_group:
            listed = ", ".join(map(str, without_group))
            print(
                f"MLflow lacks the run above the seeds of job {listed}: restore it in MLflow, or {_RERUN}", flush=True
            )
        finished = len(here) == len(self.jobs)
        parent = parent_of(self.tracker, name) if finished else None
        if finished and (parent or self.tracker.unreachable):
            self._resend(lacking, parent)
            print(f"{folder}: all {len(self.jobs)} jobs are done; {_RERUN}")
            return
        cache.begin(folder, name, self.keys, self.owners)
        if self.rerun:
            self._supersede()
        self._open_run(overrides)
        assert self.run
        for job in self.jobs:
            self._assign(job)
        self._resend(lacking, self.run.reference)
        if finished:
            self._take_in(references)
        if self.done:
            print(f"{len(self.done)} of {len(self.jobs)} jobs are done; {_RERUN}", flush=True)

    def make_ready(self, capacity: Capacity, *, here: bool) -> None:
        """Make ready for the jobs; `here`: they run in this process, `capacity.jobs` at a time.

        Else processes of a launcher run them, which find in `params.yaml` what to train.
        """
        remaining = {_name_of(job): [self._folder_of(job)] for job in self.jobs if job.number not in self.done}
        if here:
            self.pool = self.stack.enter_context(Pool.of(capacity))
        else:
            for job in self.jobs:
                if job.number not in self.done:
                    write(job.config, self._folder_of(job) / "params.yaml")
        if remaining and (not here or capacity.jobs > 1):
            print(
                f"{len(remaining)} job{'s' * (len(remaining) != 1)}{capacity}; log of each: {self.folder}/<job>/{LOG}",
                flush=True,
            )
            self.display = self.stack.enter_context(Display(remaining))
            hydra_compat.list_no_jobs()

    def _need_not_run(self, number: int) -> bool:
        """Return whether Hydra need not hand out job `number`: it is done, and what Hydra composes cannot differ."""
        return number in self.done and self.jobs[number].fixed

    def take(self, settings: Any, composed: Any) -> None:
        """Have a job trained and evaluated as Hydra composed it, unless it is done."""
        number, config = settings.job.num, parse(composed)
        assert self.pool
        job = self.jobs[number]
        if config != job.config:  # an interpolation gives another value each time, as `${now:%f}` does
            with self._lock:
                job = self.jobs[number] = self.plan.job(number, job.overrides, config)
                self._look_up(job)
                if self.run is None:
                    self._open_run(job.overrides)
                self._assign(job)
        if number not in self.done:
            self.pool.submit(partial(self._train, job))

    def _train(self, job: SweepJob, train: Train) -> None:
        """Train a job, or wait for another sweep that does and take its result."""
        if self.rerun:
            train(job.config, self._folder_of(job))
            return
        with cache.turn_of(main_root(), job.key, f"job {job.number}") as waited:
            with self._lock:
                if waited:  # another sweep may have finished it
                    self._finished = cache.FinishedJobs(main_root())
                    self._look_up(job)
                if job.number in self.done:
                    self._assign(job)
                    return
            train(job.config, self._folder_of(job))

    def end(self) -> bool:
        """Wait for all jobs, print and log ranking and failures; return whether a job failed."""
        if self.pool:
            self.pool.wait()
        else:
            self._take_over_elsewhere()
        if self.display:
            self.display.close()
        if self.run:
            cache.begin(self.folder, self.name, self.keys, self.owners)  # those that Hydra has handed out
        places = ((job, self.done.get(job.number, self._folder_of(job))) for job in self.jobs)
        ranking = Ranking.read(self.folder, self.name, places)
        ranking.write()
        ranking.show()
        self.tell_view(self.name)
        if self.run:
            self.run.describe(ranking.description())
            self.run.log_metrics(ranking.best, step=0)
            self.run.log_text(ranking.markdown(), FILE)
            if not ranking.failures:  # else the same command resumes this run
                self.stack.callback(self.tracker.release, self.folder / "run")
        return bool(ranking.failures)

    def _take_over_elsewhere(self) -> None:
        """Take over the results of jobs that other sweeps have finished while a launcher's processes waited."""
        self._finished = cache.FinishedJobs(main_root())
        for job in self.jobs:
            folder = self._folder_of(job)
            if job.number not in self.done and not cache.is_marked_done(folder):
                self._look_up(job)
                if job.number in self.done:
                    self._adopt(job)

    def _folder_of(self, job: SweepJob) -> Path:
        return self.folder / job.folder

    def _open_run(self, overrides: Sequence[str]) -> None:
        keys = dict.fromkeys(key for job in self.jobs for key in job.varied)
        varied, params = parameters(keys, self.jobs[0].config), {"overrides": list(overrides)}
        configs = [job.config for job in self.jobs]
        names = {config.data.name for config in configs}
        dataset = obtain(configs[0].data, main_root()) if len({repr(config.data) for config in configs}) == 1 else None
        tags = {"data": " ".join(sorted(names)), "data.fingerprint": dataset.fingerprint if dataset else None}
        self.run = self.open_run("sweep", self.name, len(self.jobs), varied=varied, params=params, **tags)
        if dataset:
            source = provenance.data_source(str(PREPARED), dataset.name)
            self.run.log_dataset(name=dataset.name, fingerprint=dataset.fingerprint, context="training", source=source)

    def _supersede(self) -> None:
        """Leave the runs of an earlier training of this sweep in MLflow, but out of its view and its comparison."""
        if self.tracker.unreachable:
            return
        goes_on = (self.folder / "run").exists()
        for run in find_runs(self.tracker, in_sweep(self.name)):
            if not (goes_on and run.tags.get("stage") == "sweep"):
                self.tracker.add_tags(run.id, superseded(self.name))

    def _look_up(self, job: SweepJob) -> None:
        """Note in `done` where the results of a finished job are."""
        folder = None if self.rerun else self._finished.find(self._folder_of(job), job.key)
        self.done.pop(job.number, None)
        if folder:
            self.done[job.number] = folder

    def _assign(self, job: SweepJob) -> None:
        """Have a finished job belong to this sweep, or prepare the folder of one that is to be trained."""
        if job.number in self.done:
            self._adopt(job)
        else:
            self._reset_folder(job)

    def _references(self, job: SweepJob, known: Set[str] = frozenset()) -> list[str]:
        """Return references of a finished job's runs; empty if the store lacks them."""
        return references_of(self.tracker, self.done[job.number], job, known)

    def _take_in(self, references: Mapping[int, Sequence[str]]) -> None:
        """Move the runs of finished jobs, by number, below the sweep's new run: the one above them was deleted."""
        assert self.run
        for number, runs in references.items():
            for reference in tops_of(self.done[number], runs):
                self.tracker.add_tags(reference, {"mlflow.parentRunId": self.run.reference})
        if any(references.values()):
            print("MLflow lacked the run of the sweep: its jobs are below a new one", flush=True)

    def _resend(self, jobs: Sequence[SweepJob], parent: str | None) -> None:
        """Send finished jobs whose runs the store lacks: it is another store, or new, or the runs were deleted."""
        if not jobs or parent is None:
            return
        for job in jobs:
            resend(self.tracker, job, self.done[job.number], parent)
        listed = ", ".join(str(self.done[job.number]) for job in jobs)
        print(f"MLflow lacked the runs of {len(jobs)} jobs that are done: sent from {listed}", flush=True)

    def _reset_folder(self, job: SweepJob) -> None:
        """Write `job.json` into the job's folder, and delete the record of an earlier result."""
        assert self.run
        folder = self._folder_of(job)
        folder.mkdir(parents=True, exist_ok=True)
        cache.unmark(folder)
        for name in ("summary.json", "failure.json"):  # of an earlier attempt
            (folder / name).unlink(missing_ok=True)
        membership = job.membership(self.name, self.run.reference)
        write_json(folder / "job.json", asdict(membership))

    def _adopt(self, job: SweepJob) -> None:
        """Add this sweep to the tags and the record of a job that an earlier sweep has finished."""
        folder = self.done[job.number]
        sweeps = cache.sweeps_of(folder)
        if self.name in sweeps:
            return
        sweeps.append(self.name)
        for reference in self._references(job):
            self.tracker.add_tags(reference, sweep_tags(sweeps))
        cache.mark_done(folder, job.key, sweeps)


def _name_of(job: SweepJob) -> str:
    return " ".join(filter(None, (f"job {job.number}:", job.config.framework, job.label)))
