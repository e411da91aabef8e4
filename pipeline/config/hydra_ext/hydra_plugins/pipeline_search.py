"""`hydra/sweeper=search`: hand all open trials of a search to the launcher at once, then the jobs of the chosen points.

Each trial draws its point when its turn comes, so any launcher may distribute them. The application says what there is
to do, see `pipeline.config.hydra_compat.searching`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class SearchSweeperConf:
    """The entry `search` of the group `hydra/sweeper`."""

    _target_: str = "hydra_plugins.pipeline_search.SearchSweeper"
    params: dict[str, str] | None = None
    """Spaces in a file, as `hydra.sweeper.params` of Hydra's own sweeper."""


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="pipeline")


class SearchSweeper(Sweeper):
    """See the module."""

    open_jobs: ClassVar[Callable[[Path], Sequence[tuple[str, Sequence[str]]]]]
    """Of the folder of a search: the jobs that are open, each its own folder in that of the search, and overrides."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration that all jobs share, and make the launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Launch what is open until nothing is, each job once."""
        assert self.config is not None
        assert self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir)
        launched: set[str] = set()
        returned = []
        while jobs := [job for job in type(self).open_jobs(folder) if job[0] not in launched]:
            overrides = [[*own, f"hydra.sweep.subdir={path}"] for path, own in jobs]
            results = self.launcher.launch(overrides, initial_job_idx=len(launched))
            launched |= {path for path, _ in jobs}
            returned += [result.return_value for result in results]  # raises if the job did
        return returned
