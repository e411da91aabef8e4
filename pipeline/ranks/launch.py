"""How the ranks of this process' training were started: by torchrun, by srun, by hand with TF_CONFIG, or not yet."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..core import fingerprint
from ..core.errors import UserError

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

    @property
    def token(self) -> str:
        """What ranks of one training, and of the same code, have in common."""
        names = (ARGUMENTS, "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID")
        sources = sorted(fingerprint.PACKAGE.rglob("*.py"))  # by their names in the package: nodes differ in its place
        code = {str(p.relative_to(fingerprint.PACKAGE)): fingerprint.of_bytes(p.read_bytes(), 16) for p in sources}
        return fingerprint.of_json({"code": code, **{name: os.environ.get(name) for name in names}}, 32)


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
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return None
    rank, world, port = (_number(environment, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    here = _number(environment, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else 1
    local = _number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else 0
    # torchrun itself listens on the port
    return Launch("torchrun", rank, world, environment["MASTER_ADDR"], port + 1, here, local)


def _srun(environment: Mapping[str, str]) -> Launch | None:
    if not {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"} <= environment.keys():
        return None
    rank, world = (_number(environment, name) for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
    step = environment.get("SLURM_STEP_ID", "0")
    place = _number(environment, "SLURM_JOB_ID") * 7 + (int(step) if step.isdigit() else 0)
    port = _SLURM_PORTS[place % len(_SLURM_PORTS)]
    local = _number(environment, "SLURM_LOCALID") if "SLURM_LOCALID" in environment else 0
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
    if not isinstance(rank, int) or not 0 <= rank < len(workers):
        raise ValueError(f"its index is {rank!r}, of {len(workers)} workers")
    return workers, rank


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError as error:
        raise UserError(f"{name} = {environment[name]!r}: allowed: a number, as torchrun and srun set it") from error


def first_host(nodes: str) -> str:
    """Return the first host of a list of Slurm's: `gpu[07-09,12],login1` is gpu07, gpu08, gpu09, gpu12, login1."""
    found = re.match(r"([^\[,]+)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes
