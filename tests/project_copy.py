"""Copies of this project for tests that run or edit it, and commands run inside them.

Commands run in warm workers (see `pipeline.sweeps.workers`): real processes with real signals and exit codes, which
cost a fork. `cold=True`: in a process of their own from its first import on.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from pipeline.sweeps import workers
from pipeline.tracking.store import ensure_store

ROOT = Path(__file__).resolve().parents[1]
SHARED = "PIPELINE_TESTS"
"""Names a folder that all processes of this run of the tests share, see conftest."""
_AT_FIRST = dict(os.environ)  # frameworks that are loaded set variables
TINY = (
    "model.layers=[{type:conv,filters:4,kernel_size:3,stride:2,activation:relu},{type:flatten},"
    "{type:dense,units:classes}]",
    "train.threads=1",  # two would wait for those of the test beside this one
)
"""A network that trains in no time."""


def once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, once in a run of the tests, whoever asks first; not to be changed."""
    folder = Path(os.environ[SHARED]) / name
    complete = folder.with_suffix(".complete")
    with FileLock(f"{folder}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


def copy_project(folder: Path) -> Path:
    """Copy what a run of `pipeline.config` needs into `folder`, which holds neither."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__", "sample"))
    return folder


def clone_project(folder: Path, *, store: bool = True) -> Path:
    """A git repository of its own with everything that a run needs, made tiny: 300 images, 2 epochs, 2 seeds.

    `store`: with an empty MLflow store, which takes seconds to build.
    """
    shutil.copytree(once("project", _make_project), folder)
    if store:
        shutil.copy(once("store", ensure_store) / "mlflow.db", folder)
    return folder


def _make_project(folder: Path) -> None:
    copy_project(folder)
    shutil.copytree(ROOT / "pipeline/data/sample", folder / "pipeline/data/sample")
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    edit(folder / "conf/data/_base.yaml", max_train="300", max_test="60")
    edit(folder / "conf/train/default.yaml", epochs="2")
    edit(folder / "conf/config.yaml", seeds="[0, 1]")
    edit(folder / "conf/trace/default.yaml", steps="6")
    edit(folder / "conf/compare/default.yaml", restarts="2", rounds="2", block_seconds="0.02", resamples="200")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def edit(path: Path, **values: str) -> None:
    """Change values of a YAML file as a person would."""
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^(\s*){key}: .*$", rf"\g<1>{key}: {value}", text)
        assert count == 1, key
    path.write_text(text, encoding="utf-8")


def run_module(
    project: Path, module: str, *arguments: str, cold: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <module>` in the copy, with `environment` on top of one without any trace of DVC or MLflow."""
    return run(project, *_command(module, arguments, cold), **environment)


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy, as `run_module` does; `dvc` and the `python` of its stages are warm."""
    if command[0] == "dvc":
        command = tuple(workers.command(None, *command))
    env = clean_environment() | environment
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=900, check=False)


def start(
    project: Path,
    module: str,
    *arguments: str,
    cold: bool = False,
    stderr: int = subprocess.STDOUT,
    **environment: str,
) -> "subprocess.Popen[str]":
    """Begin `python -m <module>` in the copy, in a group of processes of its own; it says what it says at once."""
    return subprocess.Popen(
        _command(module, arguments, cold),
        cwd=project,
        env=clean_environment() | {"PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def until(process: "subprocess.Popen[str]", text: str) -> str:
    """Read what it says up to a line with that text, and return it."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(said[-3000:])


def _command(module: str, arguments: tuple[str, ...], cold: bool) -> list[str]:
    named = next((name for name in ("tensorflow", "pytorch") if f"framework={name}" in arguments), None)
    return [sys.executable, "-m", module, *arguments] if cold else workers.command(named, module, *arguments)


def clean_environment(*, warm: bool = True) -> dict[str, str]:
    """The environment of the tests without settings of DVC, Hydra, MLflow or Python; a `python` first on PATH."""
    dropped = ("DVC_", "HYDRA_", "MLFLOW_", "PYTHONPATH", "PYTHONSAFEPATH")
    inherited = {name: value for name, value in _AT_FIRST.items() if not name.startswith(dropped)}
    inherited |= {name: os.environ[name] for name in (SHARED, workers.VARIABLE) if name in os.environ}
    programs = [once("programs", _make_programs)] if warm else []
    programs.append(Path(sys.executable).parent)
    return inherited | {"PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]])}


def _make_programs(folder: Path) -> None:
    """`python` as the stages of `dvc.yaml` call it."""
    cases = "".join(
        f'*" framework={name} "*) exec {shlex.join(workers.command(name, "MODULE"))[: -len("MODULE")]}"$@" ;;\n'
        for name in ("tensorflow", "pytorch")
    )
    other = shlex.join(workers.command(None, "MODULE"))[: -len("MODULE")]
    as_it_is = f'[ "$1" = -m ] || exec {sys.executable} "$@"'
    script = f'#!/bin/sh\n{as_it_is}\nshift\ncase " $* " in\n{cases}*) exec {other}"$@" ;;\nesac\n'
    (folder / "python").write_text(script)
    (folder / "python").chmod(0o755)
