"""The command line of the Hydra application: Hydra's own options, and what of Hydra this application does not do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from omegaconf import OmegaConf

from ..config import hydra_compat
from ..config.hydra_compat import Source
from ..core.errors import UserError
from .folders import WRITTEN
from .launchers import require_workable

_SHOWN: Final = ("cfg", "info", "hydra_help")
_BASIC: Final = "basic"
_ALLOWED: Final = {
    "sweeper": {"BasicSweeper": _BASIC, "SearchSweeper": "search"},
    "launcher": {
        "BasicLauncher": _BASIC,
        "JoblibLauncher": "joblib",
        "LocalLauncher": "submitit_local",
        "SlurmLauncher": "submitit_slurm",
        "RayLauncher": "ray",
    },
}
"""Plugins of Hydra's by the class that runs, and their names in `hydra/launcher=...`."""


@dataclass(frozen=True)
class CommandLine:
    """The arguments of `python -m pipeline.train` outside of DVC."""

    overrides: list[str]
    flags: list[str]
    """Hydra's options in the order that Hydra takes them."""
    source: Source
    multirun: bool
    shows: bool
    """Whether Hydra only shows something, and nothing is run."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "CommandLine":
        """Parse the arguments, which may come in any order. Raises `UserError`."""
        parser = hydra_compat.argument_parser()
        parser.error = _refuse  # type: ignore[method-assign]
        given = vars(parser.parse_intermixed_args(arguments))
        if given["config_path"] is not None:
            raise UserError(
                f"--config-path = {given['config_path']}: the configuration is conf/; allowed: --config-dir"
            )
        if given["experimental_rerun"] is not None:
            raise UserError(
                f"--experimental-rerun = {given['experimental_rerun']}: is a pickle, which can run any code; allowed: "
                "the overrides of the run, in hydra/overrides.yaml of its folder"
            )
        if given["shell_completion"]:
            raise UserError("--shell-completion: completes a program, and this is a module; --cfg job shows every key")
        modes = [name for name in ("run", "multirun", *_SHOWN) if given[name]]
        if len(modes) > 1:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in modes)
            raise UserError(f"{options}: one of them at a time")
        for name in ("resolve", "package"):
            if given[name] and not given["cfg"]:
                raise UserError(f"--{name}: goes with --cfg alone")
        directory = Path(given["config_dir"]) if given["config_dir"] is not None else None
        if given["config_dir"] == "" or (directory and not directory.is_dir()):
            raise UserError(f"--config-dir = {given['config_dir']!r}: is no folder; allowed: one that is there")
        return cls(
            overrides=given["overrides"],
            flags=_flags(given),
            source=Source("config" if given["config_name"] is None else given["config_name"], directory),
            multirun=given["multirun"],
            shows=bool(set(modes) & set(_SHOWN)),
        )


def require_applicable(overrides: Sequence[str], *, sweep: bool, search: bool) -> None:
    """Raise `UserError` for an override that this call would ignore, as it is of a sweep, a search or a single run."""
    of_sweep = ("hydra.sweep.", "hydra.sweeper.", "hydra.launcher.", "hydra/sweeper", "hydra/launcher", "sweep.")
    for given in overrides:
        key, _, value = given.lstrip("+~").partition("=")
        shown = f"{key} = {value}"
        if not sweep and key.startswith(of_sweep):
            instead = ", or hydra.run.dir" if key == "hydra.sweep.dir" else ""
            raise UserError(f"{shown}: is of a sweep, and this is a single run; allowed: with -m (--multirun){instead}")
        if not search and key.startswith(("search.", "search/")):
            raise UserError(f"{shown}: is of a search; allowed: with -m hydra/sweeper=search")
        if search and key in ("sweep.sort", "sweep.top", "sweep"):
            raise UserError(f"{shown}: a search goes by validation accuracy; allowed: search.top, or no search")
        if sweep and key.startswith("hydra.run."):
            raise UserError(f"{shown}: is of a single run, and this is a sweep; allowed: hydra.sweep.dir")


def require_supported(hydra: Any) -> None:
    """Raise `UserError` for a setting of Hydra's that this application cannot follow; `hydra`: the composed node."""
    if hydra.job.chdir:
        raise UserError("hydra.job.chdir = true: code and data are found from the folder of the call; allowed: false")
    for part, allowed in _ALLOWED.items():
        if class_of(hydra, part) not in allowed:
            target, names = OmegaConf.select(hydra, f"{part}._target_"), ", ".join(allowed.values())
            raise UserError(f"hydra/{part} = {target}: allowed: {names}")
    require_workable(class_of(hydra, "launcher"), hydra.launcher)
    size = hydra.sweeper.get("max_batch_size")
    if size is not None and size != -1 and size < 1:
        raise UserError(f"hydra.sweeper.max_batch_size = {size}: allowed: 1 or more, or null")
    name = str(hydra.job.get("name"))
    if not name or "/" in name or not name.isprintable() or len(name.encode(errors="replace")) > 240:
        raise UserError(f"hydra.job.name = {name[:80]!r}: allowed: the name of a file, without /, of 240 bytes at most")
    subdir = hydra.output_subdir
    if subdir is not None and (
        not Path(subdir).name or Path(subdir).is_absolute() or ".." in Path(subdir).parts or subdir in WRITTEN
    ):
        raise UserError(
            f"hydra.output_subdir = {subdir!r}: allowed: null, or a folder of its own inside that of the run"
        )


def is_basic(hydra: Any) -> bool:
    """Return whether Hydra's own launcher hands out the jobs, in this process; another one does so in its own."""
    return _ALLOWED["launcher"][class_of(hydra, "launcher")] == _BASIC


def class_of(hydra: Any, part: str) -> str:
    """Return the name of the class that is Hydra's `sweeper` or `launcher`."""
    return target_of(hydra, part).rpartition(".")[2]


def target_of(hydra: Any, part: str) -> str:
    """Return the full name of that class, see `class_of`."""
    return str(OmegaConf.select(hydra, f"{part}._target_"))


def is_search(hydra: Any) -> bool:
    """Return whether the sweeper is `search`; `hydra`: the composed node."""
    return class_of(hydra, "sweeper") == "SearchSweeper"


def _flags(given: dict[str, Any]) -> list[str]:
    """Return the options as Hydra's parser takes them before the overrides."""
    flags = []
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name == "overrides" or value in (None, False):
            continue
        flags += [option] if value is True else [f"{option}={value}"]
    return flags


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see python -m pipeline.train --help")
