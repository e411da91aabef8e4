"""Run a job of a sweep in the process of another launcher than Hydra's own: all that it must know is on disk."""

import os
from pathlib import Path
from typing import Final

from ..config.compose import load
from ..core.files import read_json
from ..core.paths import main_root
from ..core.signals import end_with_parent
from ..training.spec import SweepMembership
from . import cache
from .command_line import class_of
from .processes import InterruptedJobError, JobProcess

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
    folder = Path(os.path.relpath(settings.runtime.output_dir))
    if not (folder / "job.json").exists() or cache.is_marked_done(folder):
        return
    for name in [name for name in os.environ if name.endswith(_OF_LOKY)]:
        del os.environ[name]
    job = SweepMembership(**read_json(folder / "job.json", _ADVICE))
    with cache.turn_of(main_root(), job.key, f"job {job.job}") as waited:
        if waited and cache.FinishedJobs(main_root()).find(folder, job.key):
            return
        process = JobProcess(load(folder / "params.yaml"), folder, logged=True)
        try:
            process.run()
        except InterruptedJobError:
            return
        except Exception as error:  # of the launcher's own, as submitit's at a time limit
            process.record_failure(f"{type(error).__name__}: {error}")
