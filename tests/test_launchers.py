"""Jobs several at a time: in this process's pool, and by joblib and submitit. Failing, killed, resumed, found again."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from project_copy import TINY, clone_project, edit, run_module, start
from safetensors.numpy import load_file

from pipeline.config.compose import compose
from pipeline.data.dataset import Dataset
from pipeline.models.device import Choice
from pipeline.sweeps import capacity
from pipeline.sweeps.capacity import Capacity, of_launcher, of_this_machine
from pipeline.sweeps.display import Display
from pipeline.sweeps.pool import Pool

QUICK = ("seeds=[0]", "evaluate.plots=false", "tracking.log_model=false", *TINY)
LAUNCHERS = {
    "basic": ("sweep.parallel=2",),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1"),
    "ray": ("hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"),
}
RATE = "train.optimizer.learning_rate"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return clone_project(tmp_path / "project")


def sweep(project: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """Run a sweep to its end, and return what it says."""
    done = run_module(project, "pipeline.train", "-m", "framework=pytorch", *QUICK, *arguments, **environment)
    said = done.stdout + done.stderr
    assert done.returncode == code, said[-3000:]
    assert "Traceback" not in said
    return said


def jobs(project: Path) -> list[Any]:
    """The runs of all jobs."""
    found = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}").search_runs(["1"], "tags.stage = 'train'")
    return list(found)


def weights(folder: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load_file(folder / "models/seed_0/weights.safetensors").items()}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_fails_in_part_and_goes_on(project: Path, launcher: str) -> None:
    """One job of three diverges; the same command trains it alone again, and other launchers find what is done."""
    arguments = (*LAUNCHERS[launcher], "train.epochs=1", f"{RATE}=1e-3,1e38,2e-3", "train/optimizer=sgd")
    said = sweep(project, *arguments, code=1)
    assert "2 done, 1 failed" in said
    assert re.search(r"failed: job 1: .*1e\+?38: the training loss is (nan|inf)", said)
    assert re.search(r"(?m)^job 1: pytorch lr=1e\+?38: failed: the training loss is", said)
    assert Counter(run.info.status for run in jobs(project)) == {"FINISHED": 2, "FAILED": 1}
    (folder,) = (project / "multirun").iterdir()
    for number in (0, 1, 2):
        log = (folder / str(number) / "log.txt").read_text()
        assert "pipeline.sweeps.job" in log.splitlines()[0]
        assert ("error: " in log) == (number == 1)
    again = sweep(project, *arguments, code=1)
    assert "2 of 3 jobs are done" in again
    assert Counter(run.info.status for run in jobs(project)) == {"FINISHED": 2, "FAILED": 1}  # the same run
    other = ("sweep.parallel=2", "train.epochs=1", f"{RATE}=2e-3,3e-3", "train/optimizer=sgd")
    assert "1 of 2 jobs are done" in sweep(project, *other)
    single = run_module(
        project,
        *("pipeline.train", "framework=pytorch", *QUICK, "train.epochs=1", f"{RATE}=1e-3", "train/optimizer=sgd"),
        *("train.threads=1", "hydra.run.dir=outputs/single"),
    )
    assert single.returncode == 0, single.stderr
    assert weights(folder / "0") == weights(project / "outputs/single")


_STAY_A_WHILE = "pipeline.sweeps.workers|^ray::[A-Za-z]+Agent"
"""Warm workers, and two processes of Ray's that look for it every now and then: command lines of no training."""
LONG = ("train.epochs=60", "sweep.parallel=2", f"{RATE}=1e-3,2e-3")


def running(project: Path, process: "subprocess.Popen[str]") -> Path:
    """Wait until both jobs train, and return the folder of the sweep."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        logs = list(project.glob("multirun/*/?/log.txt"))
        if len(logs) == 2 and all(" epoch 2/" in log.read_text() for log in logs):
            return logs[0].parents[1]
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("the jobs do not train")


@pytest.mark.parametrize(
    ("launcher", "number", "code"),
    [
        *(("basic", signal.SIGKILL, -9), ("basic", signal.SIGINT, 130), ("basic", signal.SIGUSR2, 143)),
        *(("joblib", signal.SIGKILL, -9), ("joblib", signal.SIGINT, 130), ("joblib", signal.SIGTERM, 143)),
        *(("ray", signal.SIGKILL, -9), ("ray", signal.SIGINT, 130)),
    ],
)
def test_all_running_jobs_go_on_where_they_were(project: Path, launcher: str, number: int, code: int) -> None:
    """Ctrl-C reaches the whole group, as from a terminal; the other signals the sweep alone."""
    edit(project / "conf/data/_base.yaml", max_train="2000")
    arguments = ("pipeline.train", "-m", "framework=pytorch", *QUICK, *LONG, *LAUNCHERS[launcher])
    process = start(project, *arguments, cold=True)
    folder = running(project, process)
    children = psutil.Process(process.pid).children(recursive=True)
    trainers = [json.loads(path.read_text())["pid"] for path in project.glob("checkpoints/*/holder.json")]
    children += [psutil.Process(pid) for pid in set(trainers) if psutil.pid_exists(pid)]
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    _, alive = psutil.wait_procs([child for child in children if not re.search(_STAY_A_WHILE, _line(child))], 20)
    assert not alive
    assert list(project.glob("checkpoints/*/state.safetensors"))
    again = sweep(project, *LONG, *LAUNCHERS[launcher])
    assert f"multirun/{folder.name}: goes on" in again
    assert "2 done, 0 failed" in again
    for number in (0, 1):
        assert "goes on at epoch" in (folder / str(number) / "log.txt").read_text()
    assert Counter(run.info.status for run in jobs(project)) == {"FINISHED": 2}
    assert not list(project.glob("checkpoints/*/state.safetensors"))


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def test_another_launcher_is_refused_by_name(project: Path) -> None:
    done = run_module(
        project, "pipeline.train", "-m", "+hydra.launcher.x=1", "hydra.launcher._target_=some.OtherLauncher"
    )
    assert done.returncode == 2
    assert "allowed: basic, joblib, submitit_local, submitit_slurm, ray" in done.stderr


@pytest.mark.parametrize(
    ("launcher", "setting"),
    [
        ("joblib", "hydra.launcher.n_jobs=0"),
        *(("submitit_local", f"hydra.launcher.{key}=0") for key in ("cpus_per_task", "timeout_min")),
    ],
)
def test_a_launcher_s_value_that_cannot_work_is_refused(project: Path, launcher: str, setting: str) -> None:
    done = run_module(project, "pipeline.train", "-m", f"hydra/launcher={launcher}", setting)
    assert done.returncode == 2
    assert f"{setting.split('=')[0]} = 0: allowed: 1 or more" in done.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hydra.launcher.ray.init.num_cpus=1.5", "allowed: a whole number from 0 on, or null"),
        ("hydra.launcher.ray.remote.num_gpus=-1", "allowed: a number from 0 on, or null"),
        ("hydra.launcher.ray.remote.num_cpus=1000", "so no job would begin; allowed: "),
        ("hydra.launcher.ray.remote.num_gpus=1", "Ray has 0, so no job would begin; allowed: "),
        ("+hydra.launcher.ray.remote.resources={special:1}", "Ray has 0, so no job would begin; allowed: "),
        ("train.device=gpu", "train.device = gpu: there is no NVIDIA GPU to use"),
        ("+hydra.launcher.ray.init.adress=auto", "ray.init has no such argument; allowed: address, "),
        ("+hydra.launcher.ray.remote.gpus=1", "allowed: what ray.remote takes for a task"),
        ("hydra.launcher.ray.init.address=127.0.0.1:9", "no cluster of Ray's answers; allowed: "),
        ("hydra.launcher.ray.init.address=ray://127.0.0.1:10001", "allowed: auto, local, or host:port of a node"),
    ],
)
def test_what_ray_cannot_do_is_refused_before_any_work(project: Path, setting: str, said: str) -> None:
    done = run_module(project, "pipeline.train", "-m", "hydra/launcher=ray", *QUICK, setting)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert setting.lstrip("+").split("=")[0] in done.stderr
    assert said in done.stderr
    assert not (project / "multirun").exists()


class _Data:
    class _Split:
        class images:  # noqa: N801
            nbytes = 1 << 20

    def split(self, _: str) -> "type[_Data._Split]":
        return self._Split


DATA: Dataset = _Data()  # type: ignore[assignment]


def test_what_runs_at_once_depends_on_cores_gpus_memory_and_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "usable_cores", lambda: 8)
    monkeypatch.setattr(capacity.gpus, "visible", list)
    monkeypatch.setattr(capacity, "free_bytes", lambda: 64 << 30)

    def at_once(jobs: int, *overrides: str) -> tuple[int, int | None]:
        found = of_this_machine(compose(overrides), DATA, jobs)
        return found.jobs, found.threads

    assert at_once(100) == (8, 1)
    assert at_once(3) == (3, 2)
    assert at_once(1) == (1, None)
    assert at_once(100, "train.threads=2") == (4, None)
    assert at_once(100, "train.threads=16") == (1, None)
    assert at_once(100, "sweep.parallel=3") == (3, 2)
    assert at_once(100, "sweep.parallel=1") == (1, None)
    assert at_once(100, "sweep.parallel=20") == (20, 1)
    monkeypatch.setattr(capacity.gpus, "visible", lambda: ["0", "1"])
    monkeypatch.setattr(capacity, "choose", lambda asked, _: Choice("cpu" if asked == "cpu" else "gpu", ""))
    assert at_once(100) == (2, 4)
    assert at_once(100, "train.device=cpu") == (8, 1)
    monkeypatch.setattr(capacity.gpus, "visible", list)
    monkeypatch.setattr(capacity, "free_bytes", lambda: 4 << 30)
    assert at_once(100) == (2, 1)  # the threads, which decide bits, do not depend on the memory that is free now
    assert "4.0 GiB of free memory" in of_this_machine(compose(), DATA, 100).reason
    assert of_launcher({"n_jobs": -1}, compose(), 100) == Capacity(8, 1, "hydra.launcher.n_jobs")
    assert of_launcher({"n_jobs": 2}, compose(), 100).threads == 4
    assert of_launcher({"cpus_per_task": 4}, compose(), 100).threads == 4
    assert of_launcher({}, compose(["train.threads=3"]), 100).threads is None


def test_a_pool_gives_each_gpu_one_job_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    running: Counter[str] = Counter()

    def run(process: Any) -> int:
        device = process.variables["CUDA_VISIBLE_DEVICES"]
        running[device] += 1
        assert running[device] == 1
        time.sleep(0.02)
        running[device] -= 1
        seen.append((process.output.name, device))
        return 0

    monkeypatch.setattr("pipeline.sweeps.pool.JobProcess.run", run)
    with Pool(["0", "1"]) as pool:
        for number in range(6):
            pool.submit(lambda train, number=number: train(compose(), tmp_path / str(number)))  # type: ignore[misc]
        pool.wait()
    assert sorted(name for name, _ in seen) == list("012345")
    assert {device for _, device in seen} == {"0", "1"}


def test_the_display_tells_what_ended_and_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = {f"job {number}: pytorch": [tmp_path / str(number)] for number in range(3)}
    for (folder,) in folders.values():
        folder.mkdir()
    with Display(folders) as display:
        (tmp_path / "0/done.json").write_text("{}")
        failure = {"reason": "it broke", "code": 1, "command": ""}
        (tmp_path / "1/failure.json").write_text(json.dumps(failure))
        (tmp_path / "2/failure.json").write_text(json.dumps(failure | {"code": 130}))  # interrupted: did not fail
        display.close()
    said = capsys.readouterr().out
    assert "job 0: pytorch: done (1 of 3 done" in said
    assert "job 1: pytorch: failed: it broke (1 of 3 done, 1 failed" in said
    assert "job 2" not in said
