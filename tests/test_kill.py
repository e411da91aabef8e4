"""Killed at any moment, a training goes on to the bits of one that was not, in the same MLflow run.

`KILLS=50 pytest tests/test_kill.py`: that many kills of each training, at random moments.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from project_copy import TINY, clean_environment, clone_project, edit, once, run_module, start, until
from safetensors.numpy import load_file
from servers import Mlflow

from pipeline.sweeps import workers
from pipeline.tracking.store import ensure_store

KILLS = int(os.environ.get("KILLS", "1"))  # of each training
EXECUTION = os.environ.get("EXECUTION", "")
TRAIN = ("pipeline.train", "train.epochs=3", "seeds=[0,1]", "train.batch_size=32", "evaluate.plots=false", *TINY)
SETTINGS = ("train.augment.flip=true", "train/schedule=cosine")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy = clone_project(tmp_path / "project")
    edit(copy / "conf/data/_base.yaml", max_train="2000")
    return copy


def finish(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    return said


def kill(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def trainer(project: Path) -> int:
    """The pid of the process that trains."""
    (pid,) = {json.loads(path.read_text())["pid"] for path in project.glob("checkpoints/*/holder.json")}
    return int(pid)


def assert_no_orphan_when_killed(project: Path, process: "subprocess.Popen[str]") -> None:
    """Kill it alone: what it started ends, too."""
    children = {*psutil.Process(process.pid).children(recursive=True), psutil.Process(trainer(project))}
    os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    process.communicate()


def came_to_its_end(project: Path) -> bool:
    """Whether the latest training was evaluated and none goes on with it, though its process may not have ended."""
    going_on = list(project.glob("checkpoints/*/run")) and not list(project.glob("checkpoints/*/ended"))
    return not going_on and (latest(project) / "predictions.npz").exists()


def latest(project: Path) -> Path:
    return max((project / "outputs").iterdir(), key=lambda folder: folder.stat().st_mtime)


def runs(project: Path, uri: str = "") -> list[Any]:
    """Of trainings, the latest first."""
    client = mlflow.MlflowClient(uri or f"sqlite:///{project / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return [run for run in found if run.data.tags["stage"] == "train"]


def points(run: Any, uri: str) -> dict[str, list[tuple[int, float]]]:
    """All points of what does not depend on the clock."""
    client = mlflow.MlflowClient(uri)
    names = [name for name in run.data.metrics if not name.startswith(("time/", "system/", "throughput/"))]
    history = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    return {name: [(point.step, point.value) for point in found] for name, found in history.items()}


def assert_same_result(project: Path, reference: Path, folder: Path, uri: str = "", complete: int = 0) -> None:
    """`folder` holds the bits of `reference`; MLflow (`uri`: of the later one) has each run once, and each point.

    `complete`: trainings in between that came to their end.
    """
    own = f"sqlite:///{project / 'mlflow.db'}"
    for seed in (0, 1):
        one, other = (load_file(f / f"models/seed_{seed}/weights.safetensors") for f in (reference, folder))
        assert all(one[name].tobytes() == value.tobytes() for name, value in other.items())
        ids = [json.loads((f / "runs.json").read_text())["seeds"][str(seed)]["run"] for f in (reference, folder)]
        before, after = (
            mlflow.MlflowClient(own).get_run(ids[0]),
            _seed_run(project, seed, uri or own, 1 if uri else 2 + complete),
        )
        assert uri or after.info.run_id == ids[1]
        assert after.info.status == "FINISHED"
        assert "error" not in after.data.tags
        assert points(after, uri or own) == points(before, own)
        steps = [Counter(step for step, _ in found) for found in points(after, uri or own).values()]
        assert all(set(count.values()) == {1} for count in steps)
        assert len(points(after, uri or own)["train/step_loss"]) == 3 * 60
        assert "test/accuracy" in after.data.metrics
        assert len(after.outputs.model_outputs) == 1
    groups = [run for run in runs(project, uri or own) if "seed" not in run.data.tags]
    assert [run.info.status for run in groups] == ["FINISHED"] * (1 if uri else 2 + complete)
    assert not list((project / "checkpoints").glob("*/state.safetensors"))
    assert not list((project / "journal").glob("*/"))


def _seed_run(project: Path, seed: int, uri: str, count: int) -> Any:
    """The latest run of that seed; there are `count`."""
    found = [run for run in runs(project, uri) if run.data.tags.get("seed") == str(seed)]
    assert len(found) == count
    return found[0]


def test_a_killed_training_ends_with_the_same_bits_in_the_same_run(project: Path, framework: str) -> None:
    """SIGTERM or SIGINT, which end it at once and cleanly; then kill -9 at random moments of its output."""
    arguments = [*TRAIN, f"framework={framework}", *SETTINGS]
    arguments += [f"train.execution={EXECUTION}"] if EXECUTION else []
    finish(start(project, *arguments))
    reference, complete = latest(project), 0
    number, status = {"tensorflow": (signal.SIGTERM, 143), "pytorch": (signal.SIGINT, 130)}[framework]
    process = start(project, *arguments)
    until(process, f"{framework} s0 epoch 2/")
    began = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 10, said  # 5 on a machine that does nothing else
    assert process.returncode == status, said
    assert Counter(run.info.status for run in runs(project))["KILLED"] == 2  # the seed and its group
    generator = random.Random(os.environ.get("SEED", framework))
    for _ in range(KILLS):
        process = start(project, *arguments)
        assert process.stdout is not None
        for _line in itertools.islice(process.stdout, generator.randint(2, 13)):
            pass
        time.sleep(generator.uniform(0, 0.3))
        kill(process)
        complete += came_to_its_end(project)
    said = finish(start(project, *arguments))
    assert complete or "continued from a checkpoint" in said
    assert_same_result(project, reference, latest(project), complete=complete)


KILLED_AMID_THE_REMOVAL = """
import os, runpy, sys
from pathlib import Path

removed, unlink = [], Path.unlink

def killed(path, *arguments, **options):
    if path.name == "state.safetensors":
        if removed:
            os.kill(os.getpid(), 9)
        removed.append(path)
    unlink(path, *arguments, **options)

Path.unlink = killed
runpy.run_module("pipeline.sweeps.job", run_name="__main__", alter_sys=True)
"""


def test_a_kill_amid_the_removal_of_checkpoints_leaves_no_half_to_go_on_with(project: Path) -> None:
    """The training had come to its end: the same command trains all of it again, as it does without the kill."""
    assert run_module(project, "pipeline.config", *TRAIN[1:], *SETTINGS).returncode == 0
    (project / "killed.py").write_text(KILLED_AMID_THE_REMOVAL)
    folders = [project / "outputs" / name for name in ("first", "second")]
    for folder, module in zip(folders, ("killed", "pipeline.sweeps.job"), strict=True):
        folder.mkdir(parents=True)
        done = run_module(project, module, "--params", "params.yaml", "--output", str(folder), "framework=pytorch")
        assert done.returncode == (0 if folder.name == "second" else -signal.SIGKILL), done.stderr
        assert "continued from a checkpoint" not in done.stdout
    assert_same_result(project, *folders)


def test_a_trainer_that_is_killed_alone_is_named_and_goes_on(project: Path) -> None:
    arguments = [*TRAIN, "framework=pytorch", "seeds=[0]", "train.epochs=40"]
    process = start(project, *arguments)
    until(process, " epoch 2/")
    os.kill(trainer(project), signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: its process was ended by SIGKILL; run the same command to continue" in said.splitlines()
    assert "goes on at epoch " in finish(start(project, *arguments))


LONG = (*TRAIN, "framework=pytorch", "train.epochs=2000")


def begun(project: Path, *overrides: str) -> "subprocess.Popen[str]":
    """Begin a training into outputs/first that takes long, and wait for its first epoch."""
    process = start(project, *LONG, "hydra.run.dir=outputs/first", *overrides)
    until(process, " epoch 1/")
    return process


def files_in(folder: Path) -> set[str]:
    """Those of a run, without Hydra's."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*.*") if "hydra" not in path.parts}


def waiting(project: Path, *overrides: str) -> "subprocess.Popen[str]":
    """Begin the same training into outputs/second, and wait until it says that it waits."""
    pid = trainer(project)
    process = start(project, *LONG, "hydra.run.dir=outputs/second", *overrides)
    until(process, f"the same is being trained by process {pid} on ")
    return process


def test_of_two_that_train_the_same_the_second_takes_the_result_of_the_first(project: Path) -> None:
    first = begun(project, "train.epochs=40")
    second = waiting(project, "train.epochs=40", "train.checkpoint_minutes=1")  # which is no part of the key
    third = start(project, *LONG, "hydra.run.dir=outputs/first", "train.epochs=40")
    said, _ = third.communicate(timeout=60)
    assert third.returncode == 3, said  # it would write over the first
    assert "outputs/first: another process writes to it; wait for it" in said
    assert " epoch 40/40" in finish(first)
    said = finish(second)
    assert "the result of that process is taken over, with its MLflow runs" in said
    assert " epoch " not in said
    a, b = project / "outputs/first", project / "outputs/second"
    assert files_in(a) - {"failure.json"} == files_in(b)  # that of the third
    for name in ("models/seed_1/weights.safetensors", "history.csv", "runs.json", "scores.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert json.loads((b / "manifest.json").read_text())["settings"]["train"]["checkpoint_minutes"] == 1
    assert Counter(run.info.status for run in runs(project)) == {"FINISHED": 3}
    assert not list((project / "checkpoints").iterdir())


def test_who_waits_goes_on_where_the_other_was_killed_and_ends_at_ctrl_c(project: Path) -> None:
    first, second = begun(project), waiting(project)
    began = time.monotonic()
    os.killpg(second.pid, signal.SIGINT)
    second.communicate(timeout=20)
    assert second.returncode == 130
    assert time.monotonic() - began < 3  # of which the interpreter takes the most
    second = waiting(project)
    kill(first)
    until(second, "goes on at epoch ")
    third = start(project, *LONG, "tracking.experiment=other", "hydra.run.dir=outputs/third")
    until(third, "the same is being trained by process ")
    kill(third)
    kill(second)


def test_who_waits_trains_where_the_other_s_runs_are_in_another_experiment(project: Path) -> None:
    first = begun(project, "train.epochs=20")
    second = waiting(project, "train.epochs=20", "tracking.experiment=other")
    finish(first)
    assert " epoch 20/20" in finish(second)
    assert not list((project / "checkpoints").iterdir())


def test_of_two_sweeps_with_the_same_job_one_trains_it(project: Path) -> None:
    arguments = ("pipeline.train", "-m", "framework=pytorch", "seeds=[0]", "evaluate.plots=false", *TINY)
    first = start(project, *arguments, "train.epochs=30", "hydra.sweep.dir=multirun/first")
    until(first, " epoch 1/")
    second = start(project, *arguments, "train.epochs=30,1", "hydra.sweep.dir=multirun/second")
    until(second, "job 0: the same is being trained by process ")
    finish(first)
    said = finish(second)
    assert "job 1: pytorch epochs=1: done" in said
    assert not (project / "multirun/second/0/log.txt").exists()
    assert json.loads((project / "multirun/first/0/done.json").read_text())["sweeps"] == ["first", "second"]
    assert not (project / "multirun/second/0/models").exists()
    assert {path.name for path in (project / "multirun").iterdir()} == {"first", "second"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mlflow]:
    server = Mlflow(tmp_path / "server")
    yield server
    server.kill()


def test_a_training_goes_on_without_its_server_and_is_there_later(project: Path, server: Mlflow) -> None:
    arguments = [*TRAIN, "framework=pytorch", *SETTINGS]
    server.start()
    finish(start(project, *arguments))
    reference = latest(project)
    process = start(project, *arguments, MLFLOW_TRACKING_URI=server.url)
    until(process, "s0 epoch 2/3")
    server.kill()
    said = finish(process)
    assert "`python -m pipeline.sync` sends them" in said
    assert "Traceback" not in said
    server.start()
    for expected in ("6 journals sent, 0 wait", "0 journals sent, 0 wait"):
        done = run_module(project, "pipeline.sync")
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert_same_result(project, reference, latest(project), server.url)


def assert_sent_to_another_store(project: Path, arguments: Sequence[str], client: mlflow.MlflowClient) -> None:
    """A sweep that is done is sent, once, to a store that has none of it."""
    shutil.copy(once("store", ensure_store) / "mlflow.db", project / "other.db")
    other = f"sqlite:///{project / 'other.db'}"
    said = finish(start(project, *arguments, MLFLOW_TRACKING_URI=other))
    assert "MLflow lacked the runs of 2 jobs that are done: sent from multirun/" in said
    assert "2 done, 0 failed" in said
    there = mlflow.MlflowClient(other)
    (sweep,) = there.search_runs(["1"], "tags.stage = 'sweep'")
    sent = {run.info.run_name: run for run in there.search_runs(["1"], "tags.stage = 'train'")}
    for run in client.search_runs(["1"], "tags.stage = 'train'"):
        same = sent.pop(run.info.run_name)
        assert same.info.status == "FINISHED"
        assert same.data.params == run.data.params
        assert same.data.tags["mlflow.parentRunId"] == sweep.info.run_id
        for name in ("pair", "sweep", "sweep.key", "seed", "config.key"):
            assert same.data.tags[name] == run.data.tags[name]
        for name in ("train/loss", "validation/accuracy"):
            points, again = (c.get_metric_history(r.info.run_id, name) for c, r in ((client, run), (there, same)))
            assert [point.step for point in again] == [point.step for point in points]
            assert [point.value for point in again] == pytest.approx([point.value for point in points])
        for name in ("test/accuracy", "test/loss", "test/error_percent"):
            assert same.data.metrics[name] == run.data.metrics[name]
        stored = {item.path for item in there.list_artifacts(same.info.run_id)}
        assert stored == {"evaluate", "history.csv", "manifest.json", "model", "params.yaml"}
    assert not sent
    assert "all 2 jobs are done" in finish(start(project, *arguments, MLFLOW_TRACKING_URI=other))
    there.delete_run(sweep.info.run_id)
    said = finish(start(project, *arguments, MLFLOW_TRACKING_URI=other))
    assert "MLflow lacked the run of the sweep" in said
    assert "sent from" not in said
    (again,) = there.search_runs(["1"], "tags.stage = 'sweep'")
    below = there.search_runs(["1"], "tags.stage = 'train'")
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {again.info.run_id}
    there.delete_run(below[0].info.run_id)
    said = finish(start(project, *arguments, MLFLOW_TRACKING_URI=other))
    assert "MLflow lacked the runs of 1 jobs that are done: sent from multirun/" in said
    assert [run.info.run_id for run in there.search_runs(["1"], "tags.stage = 'sweep'")] == [again.info.run_id]
    below = there.search_runs(["1"], "tags.stage = 'train'")
    assert [run.data.tags["mlflow.parentRunId"] for run in below] == [again.info.run_id] * 2


def test_a_killed_sweep_leaves_no_orphan_and_goes_on_where_it_was(project: Path) -> None:
    given = ["pipeline.train", "-m", "framework=pytorch", *TINY, "seeds=[0]", "train.epochs=40", "sweep.parallel=1"]
    arguments = [*given, "train.optimizer.learning_rate=1e-3,2e-3", "tracking.log_model=false", "evaluate.plots=false"]
    process = start(project, *arguments, cold=True, **{workers.VARIABLE: ""})  # with workers of its own
    until(process, "pytorch lr=0.002 s0 epoch 2/")
    assert len(psutil.Process(process.pid).children(recursive=True)) >= 4  # who keeps them, one, its fork, its client
    assert_no_orphan_when_killed(project, process)
    said = finish(start(project, *arguments))
    assert "multirun/" in said.split(": goes on")[0]
    assert "1 of 2 jobs are done" in said
    assert "pytorch lr=0.002 s0 goes on at epoch " in said
    assert re.search(r"train pytorch lr=0.002: [\d,]+ of [\d,]+ images in ", said)
    assert "2 done, 0 failed" in said
    (folder,) = (project / "multirun").iterdir()
    assert Counter(run.info.status for run in runs(project)) == {"FINISHED": 2}
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    (sweep,) = client.search_runs(["1"], f"tags.stage = 'sweep' and tags.sweep = '{folder.name}'")
    assert sweep.info.status == "FINISHED"
    said = finish(start(project, *arguments))
    assert "all 2 jobs are done" in said
    assert "2 done, 0 failed" in said
    assert_sent_to_another_store(project, arguments, client)
    more = [argument.replace("1e-3,2e-3", "2e-3,3e-3") for argument in arguments]
    said = finish(start(project, *more))
    assert "1 of 2 jobs are done" in said
    other = max(path.name for path in (project / "multirun").iterdir())
    members = client.search_runs(["1"], f"tags.stage = 'train' and tags.sweep LIKE '%{other}%'")
    assert sorted(run.data.params["train.optimizer.learning_rate"] for run in members) == ["0.002", "0.003"]
    assert len(runs(project)) == 3


def test_a_killed_dvc_leaves_no_orphan_and_its_stage_goes_on(project: Path) -> None:
    """Without workers, then with: it is the same training."""
    edit(project / "conf/train/default.yaml", epochs="40", threads="1")
    edit(project / "conf/config.yaml", seeds="[0]")
    for stage in ("config", "download", "prepare"):
        arguments = ["--sync"] if stage == "config" else ["--params", "params.yaml"]
        done = run_module(project, f"pipeline.{stage}", *arguments)
        assert done.returncode == 0, done.stderr

    def repro(*, cold: bool) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["dvc", "repro", "--single-item", "train@pytorch"],
            cwd=project,
            env=clean_environment(warm=not cold) | {"SHELL": "/bin/sh"},  # dash stays before what is not `exec`ed
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    process = repro(cold=True)
    until(process, "s0 epoch 2/40")
    assert_no_orphan_when_killed(project, process)
    said = finish(repro(cold=False))
    assert "pytorch s0 goes on at epoch " in said
    assert Counter(run.info.status for run in runs(project)) == {"FINISHED": 2}
