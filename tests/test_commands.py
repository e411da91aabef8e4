"""Every command says what it is for and what it takes; a list of them is one command away."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from project_copy import clean_environment, clone_project, run_module

STAGES = (
    *(
        "config",
        "download",
        "prepare",
        "describe",
        "trace",
        "parity",
        "train",
        "evaluate",
        "export",
        "speed",
        "compare",
    ),
)
COMMANDS = (*STAGES, "doctor", "rerun", "lineage", "promote", "serve", "sync", "ui")
TAKES = {
    "config": ("--sync", "key=value"),
    "trace": ("--output DIR", "framework=tensorflow"),
    "describe": ("--output DIR", "data=fashion_mnist"),
    "train": ("-m framework=tensorflow,pytorch", "--cfg job", "sweep.rerun=true", "--params"),
    "evaluate": ("framework",),
    "export": ("framework", "export.formats"),
    "speed": ("compare.speed.restarts", "compare.speed.rounds", "compare.speed.block_seconds"),
    "compare": ("sweep=<id>", "a='<filter>' b='<filter>'", "--params"),
    "doctor": ("key=value",),
    "rerun": ("REFERENCE", "--here", "key=value"),
    "lineage": ("REFERENCE", "--all"),
    "promote": ("COMPARISON", "--name NAME"),
    "serve": ("MODEL", "--host", "--port", "--most-images"),
    "sync": ("--to URI",),
    "ui": ("--port",),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_project(tmp_path_factory.mktemp("commands") / "project", store=False)


def test_the_package_lists_every_command_with_a_line_each(project: Path) -> None:
    done = run_module(project, "pipeline")
    assert done.returncode == 0, done.stderr
    lines = dict(re.findall(r"(?m)^  python -m pipeline\.(\w+) +(\S.*)$", done.stdout))
    assert tuple(lines) == COMMANDS
    assert {path.stem for path in (project / "pipeline").glob("[a-z]*.py")} | {"config"} == set(COMMANDS)
    assert all(line[0].isupper() and len(line) < 100 for line in lines.values())


def test_a_command_is_a_module_and_no_argument(project: Path) -> None:
    for asked, way_out in (("train", "python -m pipeline.train"), ("trian", "see `python -m pipeline`")):
        done = run_module(project, "pipeline", asked)
        assert done.returncode == 2
        assert done.stderr == f"error: {asked}: a command is a module of its own; {way_out}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command_and_everything_that_it_takes(project: Path, command: str) -> None:
    done = run_module(project, f"pipeline.{command}", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m pipeline.{command} ")
    for text in TAKES.get(command, ("--params FILE",)):
        assert text in done.stdout
    assert "sweep is powered by" not in done.stdout
    assert {path.name for path in project.iterdir()}.isdisjoint({"mlflow.db", "outputs", "multirun", "results"})


@pytest.mark.parametrize("command", ["parity", "speed", "evaluate", "compare"])
def test_an_option_that_a_command_would_not_heed_is_refused(project: Path, command: str) -> None:
    done = run_module(project, f"pipeline.{command}", "--output", "elsewhere")
    assert done.returncode == 2
    assert "--output" in done.stderr


def test_a_closed_pipe_is_neither_a_failure_nor_a_traceback(project: Path) -> None:
    """What rich prints, and what `print` prints: `| head` ends both with 128 + SIGPIPE."""
    for module in ("pipeline", "pipeline.doctor"):
        command = f"{sys.executable} -m {module} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=project, env=clean_environment(), capture_output=True, text=True
        )
        assert (done.stdout.strip(), done.stderr) == ("141", "")
