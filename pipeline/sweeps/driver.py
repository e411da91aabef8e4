"""What runs the jobs of a multirun, in the process that was called: a sweep or a search, from its folder to its end."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from ..core import provenance
from ..tracking.runs import Run
from ..tracking.tracker import Tracker
from ..tracking.views import sweep_key, sweep_tags, view_page
from . import cache
from .capacity import Capacity
from .display import Display
from .folders import without_year
from .pool import Pool


class Driver(ABC):
    """The state of a sweep or a search: `begin`, `make_ready`, `take` for each job that Hydra hands out, and `end`."""

    def __init__(self, stack: ExitStack) -> None:
        """`stack`: closed when the application ends, so that the run gets the error if there is one."""
        self.stack = stack
        self.run: Run | None = None
        """The MLflow run; None if nothing is left to do."""
        self.folder: Path
        self.tracker: Tracker
        self.pool: Pool | None = None
        self.display: Display | None = None

    @property
    @abstractmethod
    def keys(self) -> list[str]:
        """The cache keys of what it trains."""

    @property
    @abstractmethod
    def owners(self) -> list[str]:
        """The owners of its folder, see `cache.owner_of`."""

    @property
    @abstractmethod
    def rerun(self) -> bool:
        """Whether what is finished is trained again."""

    @property
    @abstractmethod
    def elsewhere(self) -> bool:
        """Whether a launcher's processes run the jobs."""

    @abstractmethod
    def differs_from(self, folder: Path) -> str:
        """Say in words what tells it from the sweep whose results are in a folder; empty if that is not known."""

    @abstractmethod
    def handing_out(self, record: cache.SweepRecord | None, launcher: str) -> AbstractContextManager[None]:
        """Have Hydra hand out the jobs; `record`: that of the one in the folder, which goes on; `launcher`: its target.

        Raises `UserError` if the one in the folder cannot go on.
        """

    @abstractmethod
    def begin(self, folder: Path, name: str, overrides: Sequence[str]) -> None:
        """Look up what is finished, open the run, and write into the folder what the jobs need."""

    @abstractmethod
    def make_ready(self, capacity: Capacity, *, here: bool) -> None:
        """Make ready for the jobs; `here`: they run in this process, `capacity.jobs` at a time."""

    @abstractmethod
    def take(self, settings: Any, composed: Any) -> None:
        """Run a job that Hydra hands out; `settings`: the node `hydra`; `composed`: all else."""

    @abstractmethod
    def end(self) -> bool:
        """Wait for all jobs, print and log what was found; return whether something is left to do."""

    def open_run(
        self, kind: str, name: str, jobs: int, *, varied: Sequence[str], params: Mapping[str, Any], **tags: Any
    ) -> Run:
        """Open the run, or go on with that of an earlier process; `varied`: the keys that its view shows."""
        link = self.folder / "run"
        resumed = link.exists()
        tags = {"stage": "sweep", **sweep_tags([name]), "sweep.jobs": jobs, **provenance.origin(), **tags}
        tags |= {"command": provenance.command() or None, "folder": os.path.relpath(self.folder)}
        run = self.stack.enter_context(self.tracker.run(f"{kind} {without_year(name)}", tags=tags, run_link=link))
        if resumed:
            print(f"{self.folder}: goes on", flush=True)
        else:
            run.show(sweeps={name: varied}, trials=kind == "search")
            run.log_params(params)
        self.tracker.drain()  # so that jobs name their parent by its MLflow id
        return run

    def tell_view(self, name: str) -> None:
        """Print where MLflow shows it."""
        if not self.tracker.unreachable:
            view = view_page(self.tracker.experiment_id, sweep_key(name), charts=True)
            print(f"MLflow (`make ui` serves it): {self.tracker.link(view)}")
