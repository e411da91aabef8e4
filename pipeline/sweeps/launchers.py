"""What Hydra's launchers other than the basic one need, checked before a sweep begins."""

import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from omegaconf import OmegaConf

from ..core import gpus
from ..core.errors import UserError
from ..core.machine import usable_cores

_RAY: Final = "hydra.launcher.ray"
_PARTS: Final = ("init", "remote")
_CONNECT_SECONDS: Final = 5.0
_ASK_SECONDS: Final = 40.0
_ASK: Final = """
import json, logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
print(json.dumps([node["Resources"] for node in ray.nodes() if node["Alive"]]))
"""


def require_workable(name: str, settings: Mapping[str, Any]) -> None:
    """Raise `UserError` for a launcher that cannot run here, or a value with which no job would.

    `name`: of its class; `settings`: the node `hydra.launcher`.
    """
    if name == "SlurmLauncher" and not shutil.which("srun"):
        raise UserError("hydra/launcher = submitit_slurm: there is no srun on PATH; allowed: on a machine with Slurm")
    if (backend := settings.get("backend")) not in (None, "loky"):
        raise UserError(f"hydra.launcher.backend = {backend}: joblib's jobs need processes; allowed: loky")
    for key in ("n_jobs", "cpus_per_task", "timeout_min"):
        value = settings.get(key)
        if isinstance(value, int) and value < 1 and not (key == "n_jobs" and value < 0):
            range_ = "1 or more, or -1 for all cores" if key == "n_jobs" else "1 or more"
            raise UserError(f"hydra.launcher.{key} = {value}: allowed: {range_}")
    if name == "RayLauncher":
        _require_ray(OmegaConf.to_container(settings["ray"], resolve=True))


def _require_ray(settings: Any) -> None:
    if not find_spec("ray"):
        raise UserError("hydra/launcher = ray: Ray is not installed; allowed: joblib, or after uv pip install ray")
    import ray

    init, remote = ({key: value for key, value in settings[part].items() if value is not None} for part in _PARTS)
    known = set(inspect.signature(ray.init).parameters) - {"kwargs"}
    if unknown := [key for key in init if key not in known and not key.startswith("_")]:
        raise UserError(f"{_RAY}.init.{unknown[0]}: ray.init has no such argument; allowed: {', '.join(sorted(known))}")
    for part, given in zip(_PARTS, (init, remote), strict=True):
        for key in ("num_cpus", "num_gpus"):
            _require_number(f"{_RAY}.{part}.{key}", given.get(key), whole=part == "init")
    for key, value in remote.items():
        try:
            ray.remote(**{key: value})(_nothing)
        except (TypeError, ValueError) as error:
            said = f"{_RAY}.remote.{key} = {value}: {error}"
            raise UserError(f"{said}; allowed: what ray.remote takes for a task") from error
    if address := cluster_of(init):
        source = f"{_RAY}.init.address" if init.get("address") else "RAY_ADDRESS"
        nodes = _nodes_of(source, address)
        if not any(_fits(remote, node) for node in nodes):
            print(f"{_RAY}.remote = {remote}: no node of the cluster has that now; the jobs wait for one", flush=True)
        return
    here = {"CPU": usable_cores(), "GPU": len(gpus.visible())} | init.get("resources", {})
    here |= {name: init[key] for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus")) if key in init}
    for name, need in _needs(remote).items():
        if need > here.get(name, 0):
            key = {"CPU": "num_cpus", "GPU": "num_gpus"}.get(name, f"resources.{name}")
            allowed = f"a larger {_RAY}.init.{key}, or {here.get(name, 0)}" + " or less" * (here.get(name, 0) > 0)
            have = f"Ray has {here.get(name, 0)}, so no job would begin"
            raise UserError(f"{_RAY}.remote.{key} = {need}: {have}; allowed: {allowed}")


def _needs(remote: Mapping[str, Any]) -> dict[str, float]:
    """Return what a job takes, by Ray's names of resources; `ray.remote` takes a CPU unless told otherwise."""
    needs: dict[str, float] = {"CPU": remote.get("num_cpus", 1), "GPU": remote.get("num_gpus", 0)}
    needs.update(remote.get("resources", {}))
    return needs


def _fits(remote: Mapping[str, Any], node: Mapping[str, float]) -> bool:
    return all(need <= node.get(name, 0) for name, need in _needs(remote).items())


def cluster_of(init: Mapping[str, Any]) -> str:
    """Return the address of the cluster of Ray's that `ray.init` joins; empty: it starts one on this machine."""
    address = str(init.get("address") or os.environ.get("RAY_ADDRESS") or "local")
    return "" if address == "local" else address


def _nodes_of(key: str, address: str) -> list[dict[str, float]]:
    """Return the resources of the nodes of a cluster, by name.

    Raises `UserError` unless it answers: Ray itself tries for many minutes, so it is asked in a process of its own.
    """
    given, host, port = f"{key} = {address}", *address.rpartition(":")[::2]
    none = f"{given}: no cluster of Ray's answers; allowed: after ray start --head, or without an address"
    if address != "auto":
        if not host or not port.isdecimal() or "/" in host:
            raise UserError(f"{given}: allowed: auto, local, or host:port of a node, as ray start --head prints")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise UserError(none) from error
    command = [sys.executable, "-c", _ASK, address]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_ASK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(none) from error
    if done.returncode:
        if "token" in done.stderr:
            raise UserError(f"{given}: the cluster asks for a token; allowed: with RAY_AUTH_MODE=token, see Ray's docs")
        raise UserError(none)
    nodes: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return nodes


def _require_number(key: str, value: Any, *, whole: bool) -> None:
    kinds = int if whole else int | float
    if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or value < 0):
        raise UserError(f"{key} = {value}: allowed: a {'whole ' * whole}number from 0 on, or null")


def _nothing() -> None:
    """Stand for a job, when Ray checks its options."""
