"""Run a job of a sweep in the process of another launcher than Hydra's own: all that it must know is on disk."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..config.compose import load
from ..config.schema.whole import Config
from ..core.exits import FAILED
from ..core.files import read_json
from ..core.paths import main_root
from ..core.signals import end_with_parent
from ..training.spec import SweepMembership
from . import cache
from .command_line import class_of, is_search
from .processes import InterruptedJobError, JobProcess
from .search.tasks import run_task

_ADVICE: Final = "start the sweep again"
_OF_LOKY: Final = "_NUM_THREADS"
"""End of the variables that joblib sets in its processes: `train.threads` decides, and they would differ from those
that warm workers have imported the frameworks with."""


def run_planned() -> None:
    """Train and evaluate the job whose folder Hydra gives, unless it is done.

    A failure or an interruption of the job is in its `failure.json`, and no error: that would end the sweep, whose
    other jobs run. Waits for another sweep's turn.

    Trains what the sweep planned (`params.yaml`), for which `job.json` has the key: what Hydra composes here is the
    same, but for settings that are others on each machine or at each moment.
    """
    from hydra.core.hydra_config import HydraConfig

    settings = HydraConfig.get()
    if class_of(settings, "launcher") == "JoblibLauncher":
        end_with_parent()  # joblib's processes would outlive a sweep that is killed, and the jobs with them
    for name in [name for name in os.environ if name.endswith(_OF_LOKY)]:
        del os.environ[name]
    folder = Path(os.path.relpath(settings.runtime.output_dir))
    with suppress(InterruptedJobError):
        if is_search(settings):
            search = Path(settings.sweep.dir)
            run_task(search, str(folder.relative_to(search)), _train)
        elif (folder / "job.json").exists() and not cache.is_marked_done(folder):
            _run_job(folder)


def _run_job(folder: Path) -> None:
    job = SweepMembership(**read_json(folder / "job.json", _ADVICE))
    with cache.turn_of(main_root(), job.key, f"job {job.job}") as waited:
        if not (waited and cache.FinishedJobs(main_root()).find(folder, job.key)):
            _train(load(folder / "params.yaml"), folder)


def _train(config: Config, output: Path) -> int:
    process = JobProcess(config, output, logged=True)
    try:
        return process.run()
    except Exception as error:  # of the launcher's own, as submitit's at a time limit
        process.record_failure(f"{type(error).__name__}: {error}")
        return FAILED
