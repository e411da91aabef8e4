"""What several files of tests stand on."""

import subprocess
from pathlib import Path

import pytest
from project_copy import clone_project, run

from pipeline.models.classifier import DOORS


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in DOORS])
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework in turn, and all tests of one framework in one process."""
    return str(request.param)


@pytest.fixture(scope="session")
def repro(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A project that `dvc repro` has run in, and what that said; for tests of the xdist group `pipeline`."""
    project = clone_project(tmp_path_factory.mktemp("pipeline") / "project")
    done = run(project, "dvc", "repro")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project, done
