"""`python -m pipeline.train` as a Hydra application: one run, or with `-m` a sweep, each job in its own process.

The processes of a sweep are forks of warm workers (see `workers`), which import a framework once. A failed job does not
stop the others; the sweep ends with a ranking and a list of failures.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ..config.compose import CONF, compose, one_message, parse, register
from ..core.errors import UserError
from ..core.exits import exit_codes
from ..core.paths import main_root
from ..tracking.store import ensure_store
from . import cache, workers
from .plan import check, plan_jobs
from .processes import run_job
from .sweep import Sweep

_MULTIRUN = {"-m", "--multirun"}


def hydra_app(arguments: Sequence[str]) -> None:
    """Train one run, or with `-m` every job of a sweep.

    Raises `UserError` before any work; `SystemExit` with the code of a failed run, or 1 if a job of the sweep failed.
    """
    import hydra

    flags = {argument for argument in arguments if argument.startswith("-")}
    overrides = [argument for argument in arguments if argument not in flags]
    register()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises its errors, which are reported below
    with ExitStack() as stack:
        app = _App(stack)
        if flags <= _MULTIRUN:  # before Hydra creates a folder, and with this project's messages
            overrides = app.prepare(overrides, sweep=bool(flags))
            arguments = [*flags, *overrides]  # Hydra rejects a flag between overrides
        if flags & _MULTIRUN:
            stack.enter_context(workers.available())
        sys.argv = ["pipeline.train", *arguments]
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(app.run)()
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(one_message(error)) from error
    if app.code:
        raise SystemExit(app.code)


class _App:
    """The application: configurations composed before Hydra starts, and the task that Hydra calls."""

    current: ClassVar["_App"]
    """The application of this process: Hydra creates `SweepCallback` itself, so it cannot be passed in."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.code = stack, 0
        self.config: Any = None
        self.sweep: Sweep | None = None
        _App.current = self

    def prepare(self, overrides: list[str], *, sweep: bool) -> list[str]:
        """Compose and check the configuration or the jobs of the sweep, and return the overrides for Hydra.

        If an earlier sweep had the same jobs, its folder is added as `hydra.sweep.dir`, so that it continues.
        """
        ensure_store(main_root())
        if not sweep:
            self.config = compose(overrides)
            check(self.config)
            return overrides
        self.sweep = Sweep(plan_jobs(overrides), self.stack)
        if self.sweep.rerun or any(override.startswith("hydra.sweep.dir=") for override in overrides):
            return overrides
        folder = cache.latest(main_root(), self.sweep.keys)
        return [*overrides, f"hydra.sweep.dir={os.path.relpath(folder)}"] if folder else overrides

    def run(self, composed: DictConfig) -> None:
        """Run one job in its own process; Hydra calls this for a run and for each job of a sweep."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra_config = HydraConfig.get()
        output = Path(hydra_config.runtime.output_dir)
        if hydra_config.mode == RunMode.MULTIRUN:
            assert self.sweep
            self.sweep.run_job(hydra_config.job.num, list(hydra_config.overrides.task), output)
            return
        self.code = run_job(self.config or parse(composed), output)
        if not self.code:
            print(f"{output}: models/, plots/, predictions.npz, history.csv")


class SweepCallback(Callback):
    """The callback of Hydra around a sweep (`hydra.callbacks` in conf/config.yaml)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Begin the sweep, or end with code 2 if the configuration of a job is invalid."""
        app = _App.current
        with exit_codes():  # Hydra turns every other error of a callback into a warning
            if app.sweep is None:  # other flags of Hydra were given, so `prepare` was skipped
                swept = config.hydra.sweeper.get("params") or {}
                overrides = [f"{key}={value}" for key, value in swept.items()] + list(config.hydra.overrides.task)
                app.sweep = Sweep(plan_jobs(overrides), app.stack)
            app.sweep.begin(Path(str(config.hydra.sweep.dir)), list(config.hydra.overrides.task))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print and log the ranking and the failures of the sweep."""
        app = _App.current
        assert app.sweep
        app.code = 1 if app.sweep.end() else 0
