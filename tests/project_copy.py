"""A copy of `conf/` and `pipeline/` for tests that edit them, and `python -m pipeline.<module>` run inside it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_project(folder: Path) -> Path:
    """Copy what a run of `pipeline.config` needs into `folder`, which must not exist."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__", "sample"))
    return folder


def clone_project(folder: Path) -> Path:
    """A git repository of its own with everything that a run needs, made tiny: 300 images, 2 epochs, 2 seeds."""
    copy_project(folder)
    shutil.copytree(ROOT / "pipeline/data/sample", folder / "pipeline/data/sample")
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    edit(folder / "conf/data/_base.yaml", max_train="300", max_test="60")
    edit(folder / "conf/train/default.yaml", epochs="2")
    edit(folder / "conf/config.yaml", seeds="[0, 1]")
    edit(folder / "conf/trace/default.yaml", steps="6")
    edit(folder / "conf/compare/default.yaml", rounds="3", block_seconds="0.02", resamples="200")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def edit(path: Path, **values: str) -> None:
    """Change values of a YAML file as a person would."""
    text = path.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^(\s*){key}: .*$", rf"\g<1>{key}: {value}", text)
        assert count == 1, key
    path.write_text(text)


def run_module(project: Path, module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m <module>` in the copy, with `environment` on top of one without any trace of DVC or MLflow."""
    return run(project, sys.executable, "-m", module, *arguments, **environment)


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy, as `run_module` does."""
    env = clean_environment() | environment
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=900, check=False)


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of DVC, Hydra, MLflow or Python; its own `python` first on PATH."""
    dropped = ("DVC_", "HYDRA_", "MLFLOW_", "PYTHONPATH", "PYTHONSAFEPATH")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return inherited | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
