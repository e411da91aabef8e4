"""How the ranks of this process' training were started: by torchrun, by srun, by hand with TF_CONFIG, or not yet."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ..core import fingerprint
from ..core.errors import UserError
from .connection import listen

ARGUMENTS: Final = "PIPELINE_RANKS_ARGUMENTS"
"""Variable with a digest of the command's arguments, which the process of its job does not have."""
_EXAMPLE: Final = '{"cluster": {"worker": ["a:5000", "b:5000"]}, "task": {"type": "worker", "index": 0}}'
_MOST_PORT: Final = 65_534  # the next one is used as well
_OTHER_PORTS: Final = {
    "torchrun": "another --master-port, as the one after it is used",
    "srun": "the same again in another job step, which has another port",
    "TF_CONFIG": "another port of the first worker, as the one after it is used",
}
_SLURM_PORTS: Final = range(20_000, 30_000)
"""One for each job step, as Slurm hands out none."""


@dataclass(frozen=True)
class Launch:
    """What a launcher says of this process."""

    launcher: str
    """`torchrun`, `srun` or `TF_CONFIG`."""
    rank: int
    world: int
    host: str
    """Where rank 0 can be reached."""
    port: int
    """Where rank 0 waits for the others."""
    on_this_machine: int
    """Number of ranks that share the cores of this machine; 1: each has its own, or nobody knows."""
    local: int
    """The place of this rank among those of its machine, from 0."""
    addresses: tuple[str, ...] = ()
    """`host:port` of each rank for the collectives; empty: free ports are chosen."""

    @property
    def other_port(self) -> str:
        """How the port is chosen."""
        return _OTHER_PORTS[self.launcher]

    def require_free_port(self) -> None:
        """Raise `UserError` if something listens where the framework of this rank is told to."""
        for address in self.addresses[self.rank : self.rank + 1]:
            port = int(address.rpartition(":")[2])
            try:
                listen("", port).close()
            except OSError as error:
                reason, where = os.strerror(error.errno or 0), f"rank {self.rank} is to listen there"
                allowed = f"another port of this worker in {self.launcher}"
                raise UserError(f"port {port}: {reason}; {where}; allowed: {allowed}") from error

    @property
    def badge(self) -> "Badge":
        """What this rank shows to rank 0."""
        names = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID")
        training = [self.launcher, self.world, self.host, self.port, self.addresses, *map(os.environ.get, names)]
        sources = sorted(fingerprint.PACKAGE.rglob("*.py"))  # by their names in the package: nodes differ in its place
        code = {str(p.relative_to(fingerprint.PACKAGE)): fingerprint.of_bytes(p.read_bytes(), 16) for p in sources}
        return Badge(fingerprint.of_json(training, 32), fingerprint.of_json([os.environ.get(ARGUMENTS), code], 32))


@dataclass(frozen=True)
class Badge:
    """What a rank shows to rank 0."""

    training: str
    """Tells the ranks of one training from others; a secret where rank 0 has started them."""
    work: str = ""
    """A digest of the arguments and the code, which must be the same in all."""


def found(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return what a launcher says in the environment; None: it started no other rank.

    Variables of torchrun: docs.pytorch.org, "torchrun (Elastic Launch)"; Ray Train sets the same. Of Slurm: `man srun`,
    "OUTPUT ENVIRONMENT VARIABLES". TF_CONFIG: tensorflow.org, "Multi-worker training". Raises `UserError` if it is not
    what these say.
    """
    for read in (_torchrun, _srun, _tf_config):
        launch = read(environment)
        if launch is not None and launch.world > 1:
            return launch
    return None


def other_world(world: object, launched: Launch) -> UserError:
    """Return the error of a `train.world` that is not the launcher's number of ranks."""
    return UserError(
        f"train.world = {world}: {launched.launcher} started {launched.world} ranks; allowed: {launched.world}, or a "
        f"start without {launched.launcher}"
    )


def _torchrun(environment: Mapping[str, str]) -> Launch | None:
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    world = _number(environment, "WORLD_SIZE", 1)
    if world == 1:
        return None
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]:
        raise UserError(f"WORLD_SIZE = {world}: {missing[0]} is missing; allowed: all, as torchrun sets them")
    rank = _number(environment, "RANK", 0, world - 1)
    port = _number(environment, "MASTER_PORT", 1, _MOST_PORT)
    here = _number(environment, "LOCAL_WORLD_SIZE", 1, world, missing=1)
    most = here - 1 if "LOCAL_WORLD_SIZE" in environment else None
    local = _number(environment, "LOCAL_RANK", 0, most, missing=0)
    # torchrun itself listens on the port
    return Launch("torchrun", rank, world, environment["MASTER_ADDR"], port + 1, here, local)


def _srun(environment: Mapping[str, str]) -> Launch | None:
    if not {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"} <= environment.keys():
        return None
    world = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
    rank = _number(environment, "SLURM_PROCID", 0, world - 1)
    step = environment.get("SLURM_STEP_ID", "0")
    place = _number(environment, "SLURM_JOB_ID", 0) * 7 + (int(step) if step.isdigit() else 0)
    port = _SLURM_PORTS[place % len(_SLURM_PORTS)]
    local = _number(environment, "SLURM_LOCALID", 0, missing=0)
    host = first_host(environment["SLURM_STEP_NODELIST"])
    return Launch("srun", rank, world, host, port, 1, local)  # srun binds its cores


def _tf_config(environment: Mapping[str, str]) -> Launch | None:
    text = environment.get("TF_CONFIG")
    if not text:
        return None
    try:
        workers, rank = _workers_of(json.loads(text))
    except ValueError as error:
        raise UserError(f"TF_CONFIG = {text}: {error}; allowed, such as: {_EXAMPLE}") from error
    hosts = [address.rsplit(":", 1)[0] for address in workers]
    port = int(workers[0].rsplit(":", 1)[1]) + 1
    here, local = hosts.count(hosts[rank]), hosts[:rank].count(hosts[rank])
    return Launch("TF_CONFIG", rank, len(workers), hosts[0], port, here, local, tuple(workers))


def _workers_of(config: Any) -> tuple[list[str], int]:
    """Return the addresses of all workers, and the index of this one. Raises ValueError."""
    cluster, task = (config.get(name) if isinstance(config, dict) else None for name in ("cluster", "task"))
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise ValueError("has no cluster or no task")
    if set(cluster) != {"worker"} or task.get("type") != "worker":
        raise ValueError("only workers can train")
    workers, rank = cluster["worker"], task.get("index")
    if not isinstance(workers, list) or not workers:
        raise ValueError("names no workers")
    for address in workers:
        found = re.fullmatch(r".+:(\d+)", address) if isinstance(address, str) else None
        if not found or not 0 < int(found[1]) <= _MOST_PORT:
            raise ValueError(f"{address!r} is no host:port with a port from 1 to {_MOST_PORT}")
    if len(set(workers)) < len(workers):
        raise ValueError("names an address twice")
    if type(rank) is not int or not 0 <= rank < len(workers):
        raise ValueError(f"its index is {rank!r}, of {len(workers)} workers")
    return workers, rank


def _number(
    environment: Mapping[str, str], name: str, least: int, most: int | None = None, *, missing: int | None = None
) -> int:
    """Return the whole number of a variable. Raises `UserError` if it is none, or not from `least` to `most`."""
    if missing is not None and name not in environment:
        return missing
    with suppress(ValueError):
        number = int(environment[name])
        if number >= least and (most is None or number <= most):
            return number
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    raise UserError(f"{name} = {environment[name]!r}: allowed: {allowed}, as torchrun and srun set it")


def first_host(nodes: str) -> str:
    """Return the first host of a list of Slurm's: `gpu[07-09,12],login1` is gpu07, gpu08, gpu09, gpu12, login1."""
    found = re.match(r"([^\[,]+)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes
