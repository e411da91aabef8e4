"""kill -9 of any process of a sweep, at any moment: nothing outlives it, nothing is lost, nothing is there twice.

`KILLS=10 pytest tests/test_sweep_kills.py`: that many kills of each kind of process, at random moments.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import mlflow
import psutil
import pytest
from project_copy import TINY, clone_project, edit, run_module, start
from safetensors.numpy import load_file

from pipeline.sweeps import workers

KILLS = int(os.environ.get("KILLS", "1"))  # of each kind
SETTINGS = ("seeds=[0]", "evaluate.plots=false", "tracking.log_model=false", *TINY, "train.epochs=30")
SWEEP = ("-m", "framework=pytorch", *SETTINGS, "train.optimizer.learning_rate=1e-3,2e-3,3e-3,4e-3")
LAUNCHER = {"basic": ("sweep.parallel=2",), "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")}
VICTIMS = {
    "driver": "pipeline.train",
    "keeper": "pipeline.sweeps.workers.keeper",
    "worker": "pipeline.sweeps.workers.worker pytorch",
    "client": "sweeps/workers/client.py",
    "loky": "joblib.externals.loky.backend.popen_loky_posix",
}
SECONDS = 12.0  # a sweep takes about as long


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, bytes]]]:
    """A project, and the weights of the jobs of a sweep that was not killed."""
    project = clone_project(tmp_path_factory.mktemp("reference") / "project")
    edit(project / "conf/data/_base.yaml", max_train="1000")
    done = run_module(project, "pipeline.train", *SWEEP, *LAUNCHER["basic"], "hydra.sweep.dir=multirun/whole")
    assert done.returncode == 0, done.stderr
    return project, weights(project / "multirun/whole")


def weights(sweep: Path) -> list[dict[str, bytes]]:
    files = [load_file(sweep / str(job) / "models/seed_0/weights.safetensors") for job in range(4)]
    return [{name: value.tobytes() for name, value in file.items()} for file in files]


@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize(
    ("launcher", "victim"),
    [("basic", "driver"), ("basic", "keeper"), ("basic", "worker"), ("basic", "client"), ("joblib", "loky")],
)
def test_a_kill_loses_nothing(
    reference: tuple[Path, list[dict[str, bytes]]], tmp_path: Path, launcher: str, victim: str, kill: int
) -> None:
    project = clone_project(tmp_path / "project")
    edit(project / "conf/data/_base.yaml", max_train="1000")
    arguments = ("pipeline.train", *SWEEP, *LAUNCHER[launcher], "hydra.sweep.dir=multirun/one")
    process = start(project, *arguments, cold=True, **{workers.VARIABLE: ""})
    moment = time.monotonic() + random.Random(f"{victim} {kill}").uniform(0, SECONDS)
    family: set[psutil.Process] = set()
    found: list[psutil.Process] = []
    while process.poll() is None and (time.monotonic() < moment or not found):
        time.sleep(0.05)
        alive = [psutil.Process(process.pid), *_below(process.pid)]
        family |= set(alive)
        found = [each for each in alive if VICTIMS[victim] in _line(each)]
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            random.Random(kill).choice(found).send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    _, outliving = psutil.wait_procs([each for each in family if "resource_tracker" not in _line(each)], timeout=20)
    assert not outliving, [_line(each) for each in outliving]
    assert "Traceback" not in said, said[-3000:]
    done = run_module(project, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "4 done, 0 failed" in done.stdout
    assert weights(project / "multirun/one") == reference[1]
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    jobs = client.search_runs(["1"], "tags.stage = 'train'")
    finished = [run for run in jobs if run.info.status == "FINISHED"]
    assert Counter(run.data.tags["sweep.job"] for run in finished) == dict.fromkeys("0123", 1)
    for run in jobs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "validation/loss")]
        assert len(steps) == len(set(steps))
    assert not list(project.glob("checkpoints/*/state.safetensors"))


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
