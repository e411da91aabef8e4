"""`python -m pipeline.train` as a Hydra application: one run, or with `-m` a sweep, each job in its own process.

Hydra's launcher hands out the jobs: the basic one in this process, others in processes of their own, also on other
machines (see `planned`).

The processes of a sweep are forks of warm workers (see `workers`), which import a framework once. A failed job does not
stop the others; the sweep ends with a ranking and a list of failures.

Everything is composed, checked and claimed before Hydra starts. Hydra then hands out the jobs that were planned.
"""

import io
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext, redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig, OmegaConf

from ..config import hydra_compat
from ..config.compose import CONF, compose_job, compose_sweep, parse, readable_errors, register
from ..config.messages_compat import one_message
from ..config.schema.whole import Config
from ..core.errors import UserError
from ..core.exits import FAILED
from ..core.paths import main_root
from ..core.quiet import without_interrupted_children
from ..data.cache import obtain
from ..models.device import require_device
from ..tracking.store import ensure_store
from . import cache, folders, workers
from .capacity import Capacity, computes_here, of_launcher, of_this_machine
from .command_line import CommandLine, class_of, is_basic, is_search, require_applicable, require_supported, target_of
from .driver import Driver
from .plan import SweepPlan, check, expand
from .planned import run_planned
from .processes import run_job
from .search.driver import Search
from .sweep import Sweep


def hydra_app(arguments: Sequence[str]) -> None:
    """Train one run, or with `-m` every job of a sweep.

    Raises `UserError` before any work; `SystemExit` with the code of a failed run, or 1 if a job of the sweep failed.
    """
    import hydra

    command_line = CommandLine.parse(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, which are reported below
    with ExitStack() as stack:
        app = _App.current = _App(command_line, stack)
        stack.callback(setattr, _App, "current", None)
        sys.argv = ["pipeline.train", *command_line.flags, *app.prepare()]
        said = io.StringIO()
        try:
            with redirect_stderr(said) if command_line.shows else nullcontext():
                hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
        except SystemExit as ended:
            if command_line.shows and ended.code == FAILED:  # Hydra writes what is wrong, instead of raising it
                raise UserError(one_message(RuntimeError(said.getvalue())) or "Hydra refuses these options") from None
            raise
        except KeyboardInterrupt:
            if app.driver and app.driver.elsewhere:
                print("the running jobs end with a checkpoint each; run the same command to continue", flush=True)
            raise
        except Exception as error:
            if app.driver and app.driver.elsewhere:  # a job ended without a result, and others may run
                print(f"the launcher gave up: {one_message(error)}", file=sys.stderr)
            elif app.entered or isinstance(error, UserError):
                raise
            else:  # of Hydra's, before it called the task function
                given = " ".join(command_line.overrides)
                raise UserError(f"{one_message(error)} (in: {given})" if given else one_message(error)) from error
        sys.stderr.write(said.getvalue())
        app.end()
    if app.code:
        raise SystemExit(app.code)


register()  # at import: a launcher's process imports this module, and composes
hydra_compat.find_plugins()


def task(composed: DictConfig) -> None:
    """Run one job; Hydra calls this for a run and for each job of a sweep, in the process of its launcher."""
    if _App.current:
        _App.current.run(composed)
    else:
        run_planned()


class _App:
    """The application: configurations composed before Hydra starts, and what to do with each that Hydra composes."""

    current: ClassVar["_App | None"] = None
    """The application that this process runs; None in the processes of other launchers."""

    def __init__(self, command_line: CommandLine, stack: ExitStack) -> None:
        self.command_line, self.stack, self.code = command_line, stack, 0
        self.entered = False
        """Whether Hydra has called the task function."""
        self.config: Any = None
        self.driver: Driver | None = None
        """What runs the jobs; None: a single run."""

    def prepare(self) -> list[str]:
        """Compose and check the run, or the jobs of the sweep; claim its folder; return the overrides for Hydra."""
        asked, source = self.command_line, self.command_line.source
        shared = compose_sweep(asked.overrides, source)
        if asked.shows:
            return asked.overrides
        with readable_errors(asked.overrides):
            require_supported(shared.hydra)
            hydra_compat.require_startable(shared)
            overrides, own = hydra_compat.split(asked.overrides)
            swept = [f"{key}={value}" for key, value in (shared.hydra.sweeper.get("params") or {}).items()] + overrides
            sweep = asked.multirun or str(shared.hydra.mode).endswith("MULTIRUN")
            place = OmegaConf.select(shared, "hydra.sweep.dir") if sweep else None
            new = folders.named_by_time(shared, "sweep" if sweep else "run")
        require_applicable(asked.overrides, sweep=sweep, search=is_search(shared.hydra))
        ensure_store(main_root())
        if sweep:
            chosen = folders.free("hydra.sweep.dir", place)
            if is_search(shared.hydra):
                self.driver, capacity = self._search(swept, own, shared)
            else:
                self.driver, capacity = self._sweep(swept, own, shared.hydra)
            folder = self._begin(capacity, shared.hydra, chosen, overrides, new=new)
            return [*asked.overrides, _quoted("hydra.sweep.dir", folder)]
        self.config, named = compose_job(asked.overrides, source)
        chosen = folders.free("hydra.run.dir", named["run.dir"])
        check(self.config)
        require_device(self.config.train, self.config.framework)
        made, above = new or not chosen.exists(), [path for path in chosen.parents if not path.exists()]
        folder = folders.run_folder(chosen, self.config, self.stack, new=new)
        if made:
            self.stack.callback(self._remove_if_not_entered, folder, above)
        return [*asked.overrides, _quoted("hydra.run.dir", folder)]

    def _remove_if_not_entered(self, folder: Path, above: Sequence[Path]) -> None:
        if not self.entered:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                for path in above:  # those of its parents that were made for it
                    path.rmdir()

    def _sweep(self, overrides: Sequence[str], own: Sequence[str], hydra: Any) -> tuple[Sweep, Capacity]:
        """Expand and check the jobs, with the threads that the machine has for each; `own`: overrides of Hydra's."""
        source = self.command_line.source
        plan = SweepPlan(expand(overrides, source), own, source)
        capacity = _capacity(hydra, plan.job(0, plan.combinations[0]).config, len(plan.combinations))
        sweep = Sweep(replace(plan, threads=capacity.threads), self.stack)
        _require_devices(hydra, [job.config for job in sweep.jobs])
        return sweep, capacity

    def _search(self, overrides: Sequence[str], own: Sequence[str], shared: Any) -> tuple[Search, Capacity]:
        """Check the space, and the threads that the machine has for each trial."""
        source, framework = self.command_line.source, str(OmegaConf.select(shared, "framework"))
        search = Search(overrides, own, source, framework, self.stack)
        _require_devices(shared.hydra, [search.config])
        capacity = _capacity(shared.hydra, search.config, search.record.settings.trials)
        if capacity.threads is not None:
            search = Search([*overrides, f"train.threads={capacity.threads}"], own, source, framework, self.stack)
        return search, capacity

    def _begin(self, capacity: Capacity, hydra: Any, chosen: Path, overrides: Sequence[str], *, new: bool) -> Path:
        """Begin in a folder of its own, or go on in that of an earlier one; return it."""
        driver = self.driver
        assert driver
        earlier = cache.latest(main_root(), driver.keys) if new and not driver.rerun else None
        if earlier:
            chosen, new = Path(os.path.relpath(earlier.folder)), False
        folder = folders.sweep_folder(
            chosen, driver.keys, driver.owners, self.stack, new=new, differing=driver.differs_from
        )
        record = cache.record_of(folder)
        if class_of(hydra, "launcher") == "LocalLauncher":
            self.stack.enter_context(without_interrupted_children())
        self.stack.enter_context(driver.handing_out(record, target_of(hydra, "launcher")))
        driver.begin(folder, record.name if record else folders.name_of(folder), overrides)
        self.stack.enter_context(workers.available())
        driver.make_ready(capacity, here=is_basic(hydra))
        return folder

    def run(self, composed: DictConfig) -> None:
        """Run one job in its own process; Hydra calls this for a run and for each job of a sweep."""
        from hydra.core.hydra_config import HydraConfig

        self.entered, hydra_config = True, HydraConfig.get()
        if self.driver:
            self.driver.take(hydra_config, composed)
            return
        config = parse(composed)
        if config != self.config:  # an interpolation gives another value each time, as `${now:%f}` does
            check(config)
        output = Path(hydra_config.runtime.output_dir)
        self.code = run_job(config, output)
        if not self.code:
            plots = "plots/, " if config.evaluate.plots else ""
            print(f"{output}: models/, {plots}predictions.npz, history.csv")

    def end(self) -> None:
        """Print and log what a sweep or a search has found."""
        if self.driver and self.driver.end():
            self.code = 1


def _require_devices(hydra: Any, configs: Iterable[Config]) -> None:
    """Raise `UserError` for a job that this machine has no device for, unless it will run elsewhere."""
    if is_basic(hydra) or computes_here(hydra.launcher):
        for config in configs:
            require_device(config.train, config.framework)


def _capacity(hydra: Any, config: Config, jobs: int) -> Capacity:
    if is_basic(hydra):
        return of_this_machine(config, obtain(config.data, main_root()), jobs)
    return of_launcher(hydra.launcher, config, jobs)


def _quoted(key: str, folder: Path) -> str:
    """Return an override in Hydra's grammar: a backslash escapes only before a quote, the closing one included."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), str(folder))
    return f"{key}='{escaped}'".replace("${", "\\${")
