"""What Hydra's launchers other than the basic one need, checked before a sweep begins."""

import inspect
import logging
import os
import shutil
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from omegaconf import OmegaConf

from ..core.errors import UserError
from ..core.machine import usable_cores

_RAY: Final = "hydra.launcher.ray"
_PARTS: Final = ("init", "remote")
_CONNECT_SECONDS: Final = 5.0


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
        _require_cluster(address)
        return
    have, need = init.get("num_cpus", usable_cores()), remote.get("num_cpus", 1)
    if need > have:
        allowed = f"{have} or less, or a larger {_RAY}.init.num_cpus"
        raise UserError(f"{_RAY}.remote.num_cpus = {need}: Ray has {have}, so no job would begin; allowed: {allowed}")


def cluster_of(init: Mapping[str, Any]) -> str:
    """Return the address of the cluster of Ray's that `ray.init` joins; empty: it starts one on this machine."""
    address = str(init.get("address") or os.environ.get("RAY_ADDRESS") or "local")
    return "" if address == "local" else address


def _require_cluster(address: str) -> None:
    """Raise `UserError` unless something answers there: Ray itself tries for many minutes."""
    import ray

    key = f"{_RAY}.init.address = {address}"
    try:
        if address == "auto":
            ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
            ray.shutdown()
            return
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal() or "/" in host:
            raise UserError(f"{key}: allowed: auto, local, or host:port of a node, as ray start --head prints")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:  # ray.init raises ConnectionError
        raise UserError(f"{key}: no cluster of Ray's answers; allowed: null, or after ray start --head") from error


def _require_number(key: str, value: Any, *, whole: bool) -> None:
    kinds = int if whole else int | float
    if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or value < 0):
        raise UserError(f"{key} = {value}: allowed: a {'whole ' * whole}number from 0 on, or null")


def _nothing() -> None:
    """Stand for a job, when Ray checks its options."""
