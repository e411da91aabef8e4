"""A sweep from its first job to its ranking: what is done already, the run in MLflow, the jobs that are left."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from ..core.files import read_json, write_json
from ..core.paths import main_root
from ..tracking.references import RunReferences
from ..tracking.runs import Run
from ..tracking.tracker import Tracker
from ..tracking.views import view_page
from ..training.results import TrainingSummary
from ..training.spec import SweepMembership
from . import cache
from .plan import SweepJob, plan_job
from .processes import Failure, run_job
from .ranking import Ranking

_AGAIN = "sweep.rerun=true trains them again"


class Sweep:
    """The jobs of one sweep, composed once."""

    def __init__(self, jobs: Sequence[SweepJob], stack: ExitStack) -> None:
        """`stack`: closed, with the error if there is one, when the application ends."""
        self.jobs, self._stack = list(jobs), stack
        self.done: dict[int, Path] = {}
        """Folders with the results of the jobs that need not be trained, by number."""
        self.run: Run | None = None
        """The sweep's own in MLflow; None where all jobs are done."""

    @property
    def keys(self) -> list[str]:
        """Of all jobs."""
        return [job.key for job in self.jobs]

    @property
    def rerun(self) -> bool:
        """Whether jobs that are done are trained again."""
        return self.jobs[0].config.sweep.rerun

    def begin(self, folder: Path, overrides: Sequence[str]) -> None:
        """Find what is done, open the sweep's run, and say in each job's folder to which sweep it belongs."""
        root = main_root()
        self.folder, self.tracker = folder, Tracker(self.jobs[0].config.tracking, root)
        if not self.rerun:
            found = {job.number: cache.find(root, self._folder_of(job), job.key) for job in self.jobs}
            self.done = {number: path for number, path in found.items() if path}
        here = [path for path in self.done.values() if path.parent.resolve() == folder.resolve()]
        if len(here) == len(self.jobs):
            print(f"{folder}: all {len(self.jobs)} jobs are done; {_AGAIN}")
            return
        cache.begin(folder, self.keys)
        self._open_run(overrides)
        for job in self.jobs:
            if job.number in self.done:
                self._take_over(self.done[job.number], job.key)
            else:
                self._hand_out(job)
        if self.done:
            print(f"{len(self.done)} of {len(self.jobs)} jobs are done; {_AGAIN}", flush=True)

    def run_job(self, number: int, overrides: Sequence[str], output: Path) -> None:
        """Train and evaluate the job that Hydra hands out, unless it is done."""
        job = self.jobs[number]
        if tuple(overrides) != job.overrides:  # what is expanded by chance is another in Hydra's own expansion
            varying = {key for each in self.jobs for key in each.varied}
            job = self.jobs[number] = plan_job(number, overrides, varying)
            self.done.pop(number, None)
            if self.run is None:
                self._open_run(overrides)
            self._hand_out(job)
        if number not in self.done:
            run_job(job.config, output)

    def end(self) -> bool:
        """Print and log ranking and failures; return whether there are failures."""
        ranking = Ranking(self.folder)
        for job in self.jobs:
            folder = self.done.get(job.number, self._folder_of(job))
            if (folder / "failure.json").exists():
                ranking.failures.append((job, Failure(**read_json(folder / "failure.json"))))
            else:
                ranking.add(job, TrainingSummary(**read_json(folder / "summary.json")))
        ranking.show()
        if not self.tracker.unreachable:
            view = view_page(self.tracker.experiment_id, f"sweep-{self.folder.name}", charts=True)
            print(f"MLflow (`make ui` serves it): {self.tracker.link(view)}")
        if self.run:
            self.run.describe(ranking.markdown)
            self.run.log_text(f"{ranking.markdown}\n", "ranking.md")
            if not ranking.failures:  # else the same command goes on with it
                self._stack.callback(self.tracker.release, self.folder / "run")
        return bool(ranking.failures)

    def _folder_of(self, job: SweepJob) -> Path:
        return self.folder / str(job.number)

    def _open_run(self, overrides: Sequence[str]) -> None:
        link, name = self.folder / "run", self.folder.name
        goes_on = link.exists()
        tags = {"stage": "sweep", "sweep": name, "sweep.jobs": len(self.jobs)}
        run = self._stack.enter_context(self.tracker.run(f"sweep {name[5:]}", tags=tags, run_link=link))
        if goes_on:
            print(f"{self.folder}: goes on", flush=True)
        else:
            run.show(sweeps={name: sorted({key for job in self.jobs for key in job.varied})})
            run.log_params({"overrides": list(overrides)})
        self.tracker.drain()  # so that the jobs can name their parent by the id that MLflow gave it
        self.run = run

    def _hand_out(self, job: SweepJob) -> None:
        """Write `job.json`, and forget what the folder held before."""
        assert self.run
        folder = self._folder_of(job)
        folder.mkdir(parents=True, exist_ok=True)
        cache.unmark(folder)
        membership = SweepMembership(self.folder.name, self.run.reference, job.number, job.label, job.key)
        write_json(folder / "job.json", asdict(membership))

    def _take_over(self, folder: Path, key: str) -> None:
        """Have what was done for an earlier sweep belong to this one, too."""
        sweeps = cache.sweeps_of(folder)
        if self.folder.name in sweeps:
            return
        sweeps.append(self.folder.name)
        for reference in RunReferences.read(folder / "runs.json", "sweep.rerun=true trains it again").runs:
            self.tracker.add_tags(reference, {"sweep": " ".join(sweeps)})
        cache.mark_done(folder, key, sweeps)
