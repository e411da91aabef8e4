"""How many jobs of a sweep run at a time, and with how many threads each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..config.schema.whole import Config
from ..core import gpus
from ..core.machine import free_bytes, usable_cores
from ..data.dataset import Dataset
from ..models.device import choose
from .launchers import cluster_of

_JOB_BYTES: Final = 3 << 29
"""Peak memory of one job beside its images: 1.3 GiB measured (tests/benchmark_memory.py), and a sixth more."""


@dataclass(frozen=True)
class Capacity:
    """The jobs that run at once."""

    jobs: int
    """At least 1."""
    threads: int | None
    """What `train.threads` is set to where it is null; None: it stays null, which means all cores."""
    reason: str
    """What limits the number of jobs, for the user."""

    def __str__(self) -> str:
        """What follows the number of jobs in a sentence."""
        at_once = f", {self.jobs} at a time ({self.reason})"
        return at_once if self.threads is None else f"{at_once}, train.threads = {self.threads}"


def of_this_machine(config: Config, dataset: Dataset, jobs: int) -> Capacity:
    """Return how many of `jobs` jobs like `config` run at once on this machine.

    `sweep.parallel = auto`: one for each core (or for each `train.world * train.threads` cores), or for each GPU if
    there are any, as far as memory holds. Two jobs with one thread each train more images than two with two threads one
    after the other, and what is not training overlaps.

    Threads depend on cores, `sweep.parallel` and the number of jobs, and not on what memory is free now: they decide
    bits, and the same command has to find its finished jobs again.
    """
    cores, threads, ranks = usable_cores(), config.train.threads, config.train.world
    on_gpu = choose(config.train.device, config.framework).type == "gpu"
    cards = gpus.visible() if on_gpu else []
    asked = config.sweep.parallel
    if asked != "auto":
        most, reason = asked, f"sweep.parallel = {asked}"
    elif cards:
        most, reason = len(cards), _counted(len(cards), "GPU")
    else:
        most, reason = max(1, cores // (ranks * (threads or 1))), _counted(cores, "core")
    wanted = min(most, jobs)
    each = max(1, cores // (wanted * ranks)) if wanted > 1 and threads is None else None
    fitting = max(1, free_bytes() // (ranks * (_JOB_BYTES + 2 * dataset.split("train").images.nbytes)))
    if asked == "auto" and fitting < wanted:
        return Capacity(fitting, each, f"{free_bytes() / 2**30:.1f} GiB of free memory")
    return Capacity(wanted, each, reason if most <= jobs else _counted(jobs, "job"))


def of_launcher(launcher: Mapping[str, Any], config: Config, jobs: int) -> Capacity:
    """Return the same for another launcher of Hydra's, by its settings: joblib's jobs share the cores of this machine.

    Jobs of submitit get `train.threads = hydra.launcher.cpus_per_task` if that is set, else the cores that Slurm lets
    them use. Those of Ray get what a task takes of it, `hydra.launcher.ray.remote.num_cpus`.
    """
    ray = launcher.get("ray")
    if (at_once := launcher.get("n_jobs")) is not None:  # joblib; -1: all cores, -2: all but one
        cores = usable_cores()
        most = max(1, min(jobs, at_once if at_once > 0 else cores + 1 + at_once))
        return Capacity(most, max(1, cores // most) if config.train.threads is None else None, "hydra.launcher.n_jobs")
    each = ray.remote.get("num_cpus") if ray is not None else launcher.get("cpus_per_task")
    threads = max(1, int(each)) if each is not None and config.train.threads is None else None
    if ray is None or cluster_of(ray.init):
        return Capacity(jobs, threads, "its own limits")
    cores = ray.init.get("num_cpus") or usable_cores()
    most = max(1, min(jobs, int(cores / each))) if each else jobs
    return Capacity(most, threads, _counted(cores, "core"))


def computes_here(launcher: Mapping[str, Any]) -> bool:
    """Return whether another launcher of Hydra's runs jobs on this machine, so that its devices are theirs."""
    ray = launcher.get("ray")
    return launcher.get("n_jobs") is not None or (ray is not None and not cluster_of(ray.init))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
