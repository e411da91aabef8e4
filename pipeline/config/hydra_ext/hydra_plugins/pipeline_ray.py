"""`hydra/launcher=ray`: each job is a task of Ray's, on this machine or on a cluster.

The keys are those of hydra-ray-launcher, whose 1.2.2 needs an older cloudpickle than MLflow: what `ray.init` and
`ray.remote` take. Ray itself is an extra (`ray` in pyproject.toml).
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.core.signals import keeping_handlers, uninterrupted

_READY: Final = "pipeline.config.hydra_compat.find_plugins"
"""Called in each process of Ray's before it unpickles a task, which names this module."""
_END_SECONDS: Final = 60.0
"""How long running jobs have to save a checkpoint, once the sweep is interrupted."""
_POLL_SECONDS: Final = 0.2


@dataclass
class RayConf:
    """What Ray is told."""

    init: dict[str, Any] = field(default_factory=lambda: {"address": None, "num_cpus": None, "num_gpus": None})
    """Of `ray.init`; `address`: of a cluster (`auto`: that of this machine), null: Ray is started on this machine."""
    remote: dict[str, Any] = field(default_factory=lambda: {"num_cpus": 1, "num_gpus": None})
    """Of `ray.remote`: what each job takes."""


@dataclass
class RayLauncherConf:
    """The entry `ray` of the group `hydra/launcher`."""

    _target_: str = "hydra_plugins.pipeline_ray.RayLauncher"
    ray: RayConf = field(default_factory=RayConf)


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="pipeline")


class RayLauncher(Launcher):
    """See the module."""

    def __init__(self, ray: DictConfig) -> None:
        self.ray = ray
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what all jobs share."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hand all jobs to Ray, and wait for them; one whose process ends does not stop the others."""
        import ray

        assert self.config is not None
        assert self.hydra_context is not None
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        with _connected(_given(self.ray.init)):
            task = ray.remote(_run)
            if remote := _given(self.ray.remote):
                task = task.options(**remote)
            jobs: list[Any] = []
            for position, overrides in enumerate(job_overrides):
                composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
                with open_dict(composed):
                    composed.hydra.job.id = composed.hydra.job.num = initial_job_idx + position
                jobs.append(task.remote(Path.cwd(), self.hydra_context, composed, self.task_function))
            try:
                while not _ended(jobs):
                    time.sleep(_POLL_SECONDS)
            except BaseException:  # a signal
                with uninterrupted():
                    for job in jobs:
                        ray.cancel(job)
                    ray.wait(jobs, num_returns=len(jobs), timeout=_END_SECONDS, fetch_local=False)
                raise
            return list(ray.get(jobs))


def _ended(jobs: list[Any]) -> bool:
    """Return whether all jobs have ended. Ray does not let a handler of signals raise what it likes."""
    import ray

    with uninterrupted():
        return not ray.wait(jobs, num_returns=len(jobs), timeout=0, fetch_local=False)[1]


def _run(folder: Path, context: HydraContext, composed: DictConfig, task_function: TaskFunction) -> JobReturn:
    """Run a job in a process of Ray's, which may have run others before; `folder`: that of the call."""
    os.chdir(folder)
    setup_globals()
    HydraConfig.instance().set_config(composed)
    return run_job(
        hydra_context=context,
        task_function=task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


@contextmanager
def _connected(init: dict[str, Any]) -> Iterator[None]:
    """Start Ray, or join a cluster; its processes end with this one, and this one's handlers of signals stay."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a job that asks for no GPU sees them all
    import ray

    environment = {**(init.pop("runtime_env", None) or {}), "worker_process_setup_hook": _READY}
    try:
        with keeping_handlers():
            ray.init(
                **{"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR, **init},
                runtime_env=environment,
            )
    except ConnectionError as error:  # its text holds tracebacks
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reasons = [line for line in lines if "Error: " in line]
        raise ConnectionError("; ".join(dict.fromkeys([*lines[:1], *reasons[-1:]]))) from error
    try:
        yield
    finally:
        ray.shutdown()


def _given(settings: DictConfig) -> dict[str, Any]:
    """Return the settings that have a value."""
    found = OmegaConf.to_container(settings, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items() if value is not None}
