"""Training outside of DVC: single runs, sweeps, interruptions, bad input."""

import json
import re
import signal
import subprocess
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from project_copy import TINY, clean_environment, clone_project, run_module, start

from pipeline.sweeps import workers
from pipeline.tracking.views import sweep_key

pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_project(tmp_path_factory.mktemp("train") / "project")


def _runs(project: Path, condition: str = "") -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()], condition))


BAD = {
    "train.epocs=3": r"train.epocs = 3: unknown key; did you mean epochs",
    "train.epochs=0": r"train.epochs = 0: .*greater than or equal to 1",
    "train.batch_size=abc": r"train.batch_size = 'abc': .*integer",
    "framework=jax": r"framework = 'jax': allowed: tensorflow, pytorch",
    "model=vgg": r"model = 'vgg': unknown; allowed: lenet5, resnet8, .*simple_cnn",
    "data=mnist data.mirror=/no/such/folder": r"data.mirror = /no/such/folder: .*train-images",
    "-m train.epochs=1,0": r"train.epochs = 0",
    "-m framework=pytorch,jax": r"framework = 'jax'",
    "-m train.epocs=1,2": r"train.epocs = 1: unknown key",
    "epochs": r"epochs",
    "--params nothing.yaml": r"nothing.yaml: no such file",
}


@pytest.mark.parametrize(("arguments", "message"), BAD.items())
def test_a_mistake_ends_with_one_message_and_code_2(project: Path, arguments: str, message: str) -> None:
    done = run_module(project, "pipeline.train", *arguments.split())
    assert done.returncode == 2, done.stderr
    assert re.search(message, done.stderr)
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert not (project / "multirun").exists()
    assert not (project / "outputs").exists()


def test_a_network_that_does_not_fit_the_images_is_refused(project: Path) -> None:
    layers = "[{type: conv, filters: 2, kernel_size: 40}, {type: flatten}, {type: dense, units: classes}]"
    done = run_module(project, "pipeline.train", f"model.layers={layers.replace(': ', ':')}")
    assert done.returncode == 2
    assert "model.layers[0].kernel_size = 40: larger than its input of 28x28" in done.stderr


def test_a_sweep_ranks_its_jobs_and_names_the_failed_one(project: Path) -> None:
    arguments = ["framework=pytorch", *TINY, "train.optimizer.learning_rate=1e30,1e-3", "seeds=[0]", "train.epochs=1"]
    done = run_module(project, "pipeline.train", "-m", *arguments, COLUMNS="150")
    assert done.returncode == 1
    assert "1 done, 1 failed" in done.stdout
    assert "failed: job 0: pytorch learning_rate=1e+30: the training loss is nan" in " ".join(done.stdout.split())
    assert re.search(r"rank .* framework .* learning_rate .* validation accuracy", done.stdout)
    assert "Traceback" not in done.stderr
    (folder,) = (project / "multirun").iterdir()
    assert (folder / "1/models/seed_0/weights.safetensors").exists()
    assert json.loads((folder / "0/failure.json").read_text())["code"] == 1
    runs = {run.info.run_name: run for run in _runs(project, f"tags.sweep = '{folder.name}'")}
    parent = next(run for run in runs.values() if run.data.tags["stage"] == "sweep")
    good, bad = runs["pytorch lr=0.001 s0"], runs["pytorch lr=1e+30 s0"]
    assert parent.info.status == "FINISHED"
    assert good.info.status == "FINISHED"
    assert bad.info.status == "FAILED"
    assert "nan" in bad.data.tags["error"]
    assert {good.data.tags["mlflow.parentRunId"], bad.data.tags["mlflow.parentRunId"]} == {parent.info.run_id}
    assert not (project / "results").exists()
    assert "test/accuracy" in good.data.metrics
    assert (folder / "1/plots/confusion.png").exists()
    assert good.data.tags["leaderboard"] == "true"
    assert good.data.tags["sweep.values"] == "train.optimizer.learning_rate=0.001"
    ranked = (folder / "ranking.md").read_text()
    assert ranked.count("\n| 1 | 1 | pytorch | 0.001 | 1 |") == 1
    assert "\n| failed | 0 | pytorch | 1e+30 |" in ranked
    assert "\n| 1 | 1 | pytorch | 0.001 | 1 |" in parent.data.tags["mlflow.note.content"]
    experiment = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}").get_experiment(parent.info.experiment_id)
    assert f"mlflow.sharedViewState.{sweep_key(folder.name)}" in experiment.tags


def test_a_job_is_what_hydra_hands_out_where_chance_expands_the_sweep(project: Path) -> None:
    """Hydra draws anew whenever it expands: the values of the ranking are those that were trained with."""
    rates = [f"1e-{n}" for n in range(2, 8)]
    arguments = ["framework=pytorch", *TINY, f"train.optimizer.learning_rate=shuffle({','.join(rates)})", "seeds=[4]"]
    before = set((project / "multirun").glob("*")) if (project / "multirun").exists() else set()
    for already_done in (0, 6):
        done = run_module(project, "pipeline.train", "-m", *arguments, "train.epochs=1", COLUMNS="150")
        assert done.returncode == 0, done.stderr
        assert "6 done, 0 failed" in done.stdout
        trained = len(re.findall(r"(?m)^job \d: pytorch \S+: done ", done.stdout))
        assert trained == 6 - already_done
        rows = re.findall(r"(?m)^\W*\d+\W+(\d+)\W+pytorch\W+(\d\S*)", done.stdout)
        assert sorted(float(rate) for _, rate in rows) == sorted(map(float, rates))
        (folder,) = set((project / "multirun").glob("*")) - before  # the second goes on in the first one's order
        for number, rate in rows:
            job = json.loads((folder / number / "job.json").read_text())
            manifest = json.loads((folder / number / "manifest.json").read_text())
            assert (job["label"], job["values"]) == (f"lr={rate}", f"train.optimizer.learning_rate={rate}")
            assert manifest["settings"]["train"]["optimizer"]["learning_rate"] == float(rate)


def test_a_part_of_a_sweep_s_name_is_no_sweep(project: Path) -> None:
    (name, *_) = sorted(path.name for path in (project / "multirun").iterdir())
    done = run_module(project, "pipeline.compare", f"sweep={name[:-1]}")
    assert done.returncode == 2
    assert f"sweep = {name[:-1]}: no finished runs of it" in done.stderr
    assert name in done.stderr


_AGAIN = """
import sys
from pathlib import Path
import numpy as np
from pipeline.data.dataset import Dataset
from pipeline.models import backend
output, data = map(Path, sys.argv[1:])
predictions = np.load(output / "predictions.npz")
images = Dataset.open(data).split("test").images[:]
for seed, logits in zip(predictions["seeds"], predictions["logits"], strict=True):
    assert backend.load(backend.model_folder(output, seed)).predict(images).tobytes() == logits.tobytes()
print("the same bits")
"""


@pytest.mark.parametrize("framework", ["tensorflow", "pytorch"])
def test_the_classifier_in_hand_predicts_what_the_saved_models_do(project: Path, framework: str) -> None:
    """One run of two seeds evaluates both with the classifier that it has compiled for training."""
    before = set((project / "outputs").glob("*"))
    done = run_module(project, "pipeline.train", f"framework={framework}", *TINY, "train.epochs=1", "seeds=[0,1]")
    assert done.returncode == 0, done.stderr
    (output,) = set((project / "outputs").glob("*")) - before
    (data,) = (project / "data/cache").glob("mnist_sample-*[!k]/")
    (project / "again.py").write_text(_AGAIN)
    again = run_module(project, "again", str(output), str(data))
    assert again.stdout.strip().endswith("the same bits"), again.stderr


def test_an_interrupted_run_is_killed_in_mlflow(project: Path) -> None:
    arguments = ["framework=pytorch", *TINY, "train.epochs=500", "seeds=[7]"]
    with start(project, "pipeline.train", *arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch 3/" in line:
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
    assert process.returncode == 143
    seed, group = (
        _runs(project, f"tags.seed {test} and params.`train.epochs` = '500'") for test in ("= '7'", "is null")
    )
    assert [run.info.status for run in seed + group] == ["KILLED", "KILLED"]
    assert "train/loss" in seed[0].data.metrics


def test_two_processes_build_one_store(project: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'fresh.db'}"
    (project / "log_one.py").write_text(
        "from pathlib import Path\n"
        "from pipeline.config.compose import compose\n"
        "from pipeline.tracking.tracker import Tracker\n"
        "with Tracker(compose().tracking, Path('.')).run('r', tags={}) as run: run.log_metrics({'m': 1.0}, step=0)"
    )
    environment = clean_environment() | {"MLFLOW_TRACKING_URI": store}
    command = workers.command(None, "log_one")
    processes = [subprocess.Popen(command, cwd=project, env=environment) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    client = mlflow.MlflowClient(store)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len(found) == 4
    assert all(run.data.metrics == {"m": 1.0} for run in found)


def test_a_store_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project", store=False)
    refused = {
        "ftp://x": "allowed: sqlite",
        "sqlite:////proc/no/mlflow.db": "cannot be created",
    }
    for uri, message in refused.items():
        done = run_module(project, "pipeline.train", "framework=pytorch", "train.epochs=1", MLFLOW_TRACKING_URI=uri)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (project / "data").exists()
        assert not (project / "outputs").exists()
