"""What can go wrong around a run: one clear message, and nothing that was finished is lost."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from project_copy import TINY, clone_project, run_module, start
from safetensors.numpy import load_file

from pipeline.config.compose import compose
from pipeline.core.errors import DataChangedError
from pipeline.core.exits import MISTAKE, exit_codes
from pipeline.core.files import write_text
from pipeline.core.turns import turn
from pipeline.data.dataset import Dataset
from pipeline.tracking.journal import Journal
from pipeline.tracking.store import ensure_store
from pipeline.tracking.tracker import Tracker

TRAIN = ("pipeline.train", "framework=pytorch", "evaluate.plots=false", *TINY)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def assert_one_message(done: "subprocess.CompletedProcess[str]", *texts: str) -> None:
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr[-3000:]
    for text in texts:
        assert text in errors[0]


def test_a_full_disk_ends_it_clearly_and_with_room_it_goes_on(small_disk: Path) -> None:
    project = clone_project(small_disk / "project")
    arguments = (*TRAIN, "train.epochs=40", "seeds=[0]")
    done = run_module(project, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    (reference,) = (project / "outputs").iterdir()
    with start(project, *arguments, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " epoch 3/" in line:
                break
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0" * (1 << 12))
        out, err = process.communicate(timeout=300)
    done = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    assert done.returncode == 1
    assert_one_message(done, "No space left on device", "run the same command")
    filler.unlink()
    done = run_module(project, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "goes on at epoch" in done.stdout
    weights = [load_file(f / "models/seed_0/weights.safetensors") for f in (reference, latest(project))]
    assert all(weights[0][name].tobytes() == value.tobytes() for name, value in weights[1].items())
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    found = client.search_runs(["1"], "tags.seed = '0'")
    assert [found_.info.status for found_ in found] == ["FINISHED", "FINISHED"]
    history = client.get_metric_history(found[0].info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 41))


def latest(project: Path) -> Path:
    return max((project / "outputs").iterdir(), key=lambda folder: folder.stat().st_mtime)


def test_folders_that_cannot_be_written_are_named_before_any_work(small_disk: Path, tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    for stage in ("config", "download", "prepare"):
        arguments = ["--sync"] if stage == "config" else ["--params", "params.yaml"]
        assert run_module(project, f"pipeline.{stage}", *arguments).returncode == 0
    for name in ("results", "outputs", "multirun", "checkpoints", "journal"):
        (project / name).symlink_to(small_disk)
    remount(small_disk, "ro")
    stage = run_module(project, "pipeline.train", "--params", "params.yaml", "framework=pytorch")
    assert_one_message(stage, "Read-only file system", "results")
    alone = run_module(project, *TRAIN)
    assert_one_message(alone, "Read-only file system", "outputs")
    swept = run_module(project, TRAIN[0], "-m", *TRAIN[1:], "seeds=[0],[1]")
    assert_one_message(swept, "Read-only file system", "multirun")
    for name in ("results", "outputs", "multirun"):
        (project / name).unlink()
    for name in ("checkpoints", "journal"):
        done = run_module(project, *TRAIN)
        assert done.returncode == 1
        assert_one_message(done, "Read-only file system", name)
        (project / name).unlink()
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    assert not client.search_runs([e.experiment_id for e in client.search_experiments()])


USES_OF_A_FOLDER: dict[str, Callable[[Path], object]] = {
    "journal": lambda path: Journal.create(path.parent),
    "store": lambda path: ensure_store(path.parent),
    "turn": lambda path: turn(path / "x", "label").__enter__(),
    "write": lambda path: write_text(path / "x/file", ""),
    "mkdir": lambda path: path.mkdir(exist_ok=True),
    "touch": lambda path: (path / "file").touch(),
}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("use", USES_OF_A_FOLDER)
def test_what_stands_in_place_of_a_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], use: str, link: bool
) -> None:
    path = tmp_path / "journal"
    path.symlink_to("/dev/null/x") if link else path.touch()
    with pytest.raises(SystemExit) as ended, exit_codes():
        USES_OF_A_FOLDER[use](path)
    assert ended.value.code == MISTAKE
    said = capsys.readouterr().err
    assert str(path) in said
    assert "is no folder" in said
    assert "move it away" in said
    assert said.count("\n") == 1


def test_a_missing_file_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), exit_codes():
        (tmp_path / "missing/file").open()


def test_a_clock_that_goes_backwards_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker, now = Tracker(compose().tracking, tmp_path), time.time()

    def backwards() -> float:
        nonlocal now
        now -= 60
        return now

    monkeypatch.setattr("time.time", backwards)
    with tracker.run("parent", tags={}) as parent, tracker.run("child", parent=parent.reference, tags={}) as child:
        for step in range(20):
            child.log_metrics({"loss": step / 2}, step=step)
    monkeypatch.undo()
    client = mlflow.MlflowClient(tracker.uri)
    found = {run.info.run_name: run for run in client.search_runs([tracker.experiment_id])}
    history = client.get_metric_history(found["child"].info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(step, step / 2) for step in range(20)]
    assert found["child"].data.metrics == {"loss": 9.5}
    assert found["child"].data.tags["mlflow.parentRunId"] == found["parent"].info.run_id
    for one in found.values():
        assert one.info.status == "FINISHED"
        assert one.info.end_time >= one.info.start_time


def test_a_loss_that_is_no_number_stops_the_run_and_is_kept(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    done = run_module(project, *TRAIN, "train/optimizer=sgd", "train.optimizer.learning_rate=1e30", "seeds=[0]")
    assert done.returncode == 1
    assert_one_message(done, "the training loss is ", "train.optimizer.learning_rate")
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    (found,) = client.search_runs(["1"], "tags.seed = '0'")
    assert found.info.status == "FAILED"
    assert "the training loss is " in found.data.tags["error"]
    history = client.get_metric_history(found.info.run_id, "train/step_loss")
    assert any(not np.isfinite(point.value) or point.value > 1e308 for point in history)
    assert not list((project / "checkpoints").glob("*/state.safetensors"))


def test_data_that_change_under_a_running_job_end_it(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    arguments = [*TRAIN, "train.epochs=1000", "seeds=[0]"]
    with start(project, *arguments, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " epoch 2/" in line:
                break
        (images,) = (project / "data").glob("cache/*/train/images.npy")
        with images.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x07")
        out, err = process.communicate(timeout=120)
    done = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    assert done.returncode == 1
    assert_one_message(done, str(images), "was changed while it was in use")
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    assert {found.info.status for found in client.search_runs(["1"], "tags.stage = 'train'")} == {"FAILED"}


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    assert run_module(project, "pipeline.download", "--params", "conf/config.yaml").returncode == 2
    for stage in ("download", "prepare"):
        done = run_module(project, f"pipeline.{stage}")
        assert done.returncode == 0, done.stderr
    split = Dataset.open(project / "data/prepared").split("train")
    os.truncate(split.images.path, 1000)
    with pytest.raises(DataChangedError, match=r"images\.npy: became shorter"):
        split.images[:]
    with pytest.raises(DataChangedError, match="was changed while it was in use"):
        split.require_unchanged()
    shutil.rmtree(project)
