"""What `make` does before there is an environment, and what it never removes."""

import shutil
import subprocess
from pathlib import Path

import pytest
from project_copy import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)


def test_another_python_is_refused_before_anything_is_installed(folder: Path) -> None:
    python = folder / "python3.10"
    python.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.10.1\nexit 1\n', encoding="utf-8")
    python.chmod(0o755)
    done = _make(folder, "setup", f"PYTHON={python}")
    assert done.returncode == 2
    assert f"{python} is Python 3.10.1: set PYTHON=<path to Python 3.11, 3.12 or 3.13>" in done.stderr
    assert not (folder / ".venv").exists()


def test_clean_keeps_what_was_not_sent_or_not_finished(folder: Path) -> None:
    kept, removed = ("journal", "checkpoints", "mlartifacts", ".dvc"), ("results", "outputs", "multirun", "data/raw")
    for name in (*kept, *removed):
        (folder / name).mkdir(parents=True)
    (folder / "mlflow.db").touch()
    assert _make(folder, "clean").returncode == 0
    assert all((folder / name).exists() for name in (*kept, "mlflow.db"))
    assert not any((folder / name).exists() for name in removed)
