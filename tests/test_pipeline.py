"""A pulse through every stage: real `dvc repro`, both frameworks, a real MLflow store, on 300 images."""

import csv
import json
import re
import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.entities import Run
from project_copy import edit, run, run_module
from scipy import stats

from pipeline import compare
from pipeline.core import fingerprint, frameworks
from pipeline.core.machine import packages
from pipeline.sweeps import workers

FRAMEWORKS = ("tensorflow", "pytorch")
PLOTS = ("confusion.png", "mistakes.png", "per_class.png", "reliability.png")
pytestmark = pytest.mark.xdist_group("pipeline")


@pytest.fixture(scope="module")
def project(finished: tuple[Path, str, str]) -> Path:
    return finished[0]


@pytest.fixture(scope="module")
def client(project: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def _run(client: mlflow.MlflowClient, project: Path, framework: str, seed: int | None) -> Run:
    runs = json.loads((project / "results" / framework / "runs.json").read_text())
    return client.get_run(runs["group"] if seed is None else runs["seeds"][str(seed)]["run"])


def test_it_ends_with_both_frameworks_side_by_side(finished: tuple[Path, str, str]) -> None:
    _, out, errors = finished
    for word in ("TensorFlow", "PyTorch", "test accuracy", "test log-loss", "training images/s", "seconds per epoch"):
        assert word in out
    assert "speed: 2 restarts" in out
    compared = "TensorFlow graph, with this project's adam; PyTorch eager, with all parts its own"
    assert f"\nCompared: {compared}.\n" in out
    for word in ("calibration error", "one image, ms", "verdict", "±", "TensorFlow minus PyTorch", "report.html"):
        assert word in out
    assert "Traceback" not in out + errors


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_file_of_the_contract_is_there(project: Path, framework: str) -> None:
    folder = project / "results" / framework
    predictions = np.load(folder / "predictions.npz")
    assert predictions["logits"].shape == (2, 60, 10)
    assert predictions["logits"].dtype == np.float32
    assert predictions["labels"].shape == (60,)
    assert predictions["seeds"].tolist() == [0, 1]
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["seed"], r["epoch"], r["split"]) for r in rows] == [
        (str(seed), str(epoch), split) for seed in (0, 1) for epoch in (1, 2) for split in ("train", "validation")
    ]
    judged = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "scores")}
    right = predictions["logits"].argmax(axis=2) == predictions["labels"]
    assert judged["metrics"]["test"]["accuracy"] == pytest.approx(right.mean())
    assert judged["scores"]["seeds"]["1"]["accuracy"] == pytest.approx(right[1].mean())
    for name in PLOTS:
        for place in (".", "seed_0", "seed_1"):
            assert (folder / "plots" / place / name).read_bytes().startswith(b"\x89PNG")
    answer = json.loads((folder / "inference.json").read_text())["inference"]
    assert 0 < answer["latency_p50_milliseconds"] <= answer["latency_p95_milliseconds"]
    assert answer["images_per_second"] > 0


def test_both_frameworks_take_turns_and_the_idle_one_rests(project: Path) -> None:
    document = json.loads((project / "results/speed/speed.json").read_text())
    assert [len(rounds) for rounds in document["restarts"]] == [2, 2]
    for kind, ratio in document["ratios"]["pytorch"].items():
        rates = [
            [np.log(np.median(row[kind]["pytorch"]) / np.median(row[kind]["tensorflow"])) for row in rounds]
            for rounds in document["restarts"]
        ]
        units = np.mean(rates, axis=1)  # the interval is over the restarts, not over the rounds
        assert document["by_restart"]["pytorch"][kind] == pytest.approx(np.exp(units))
        interval = stats.ttest_1samp(units, 0).confidence_interval(0.95)
        assert ratio["mean"] == pytest.approx(np.exp(np.mean(units)))
        assert (ratio["low"], ratio["high"]) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))
        assert ratio["n"] == 2
    sides = document["arms"]
    assert sides["tensorflow"]["threads"] == sides["pytorch"]["threads"]
    assert sides["tensorflow"]["cpus"] == sides["pytorch"]["cpus"]
    for side in sides.values():
        assert side["idle_cpu_share"] < 0.2
        assert side["training_images_per_second"] > 0
        assert side["compile_seconds"] > 0


def test_the_comparison_answers_the_question(project: Path, client: mlflow.MlflowClient) -> None:
    document = json.loads((project / "results/comparison/comparison.json").read_text())
    assert [document[key]["name"] for key in ("a", "b")] == ["TensorFlow", "PyTorch"]
    assert document["seeds"] == [0, 1]
    scores = [json.loads((project / f"results/{name}/scores.json").read_text())["seeds"] for name in FRAMEWORKS]
    for metric, found in document["metrics"].items():
        values = [[side[seed][metric] for seed in ("0", "1")] for side in scores]
        assert found["difference"]["mean"] == pytest.approx(np.mean(values[0]) - np.mean(values[1]), abs=1e-6)
        mean, low, high = (found["difference"][name] for name in ("mean", "low", "high"))
        assert high - mean == pytest.approx(mean - low)
        assert (high - mean > found["difference"]["standard_error"] > 0) == (values[0] != values[1])
        assert (low <= 0 <= high) == (found["difference"]["p_value"] >= 0.05)
        kind = "inconclusive"
        if not low <= 0 <= high and abs(mean) >= 1e-6:
            kind = "a_better" if (mean > 0) == (metric == "accuracy") else "b_better"
        elif max(-found["equivalence"]["low"], found["equivalence"]["high"]) < found["equivalence"]["margin"]:
            kind = "equivalent"
        assert found["verdict"]["kind"] == kind
    assert document["parity"]["passed"]
    small = json.loads((project / "results/comparison/difference.json").read_text())
    assert small["test"]["accuracy"] == document["metrics"]["accuracy"]["difference"]["mean"]
    experiment = client.get_experiment_by_name("tensorflow-vs-pytorch")
    (found,) = client.search_runs([experiment.experiment_id], "tags.stage = 'compare'")
    assert found.info.run_name.startswith(f"compare {found.data.tags['model']} {found.data.tags['data']}: ")
    assert found.data.tags["verdict"] == document["verdict"]
    assert document["sentence"] in found.data.tags["mlflow.note.content"]
    assert found.data.metrics["accuracy/difference"] == small["test"]["accuracy"]
    assert found.data.metrics["speed_training/ratio"] == small["speed_ratio"]["training"]
    names = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert names >= {"report.html", "comparison.json", "differences.png", "speed.png", "confusion.png"}


def test_the_report_needs_nothing_but_itself(project: Path) -> None:
    page = (project / "results/comparison/report.html").read_text()
    document = json.loads((project / "results/comparison/comparison.json").read_text())
    assert not re.search(r"""(src|href)=(?!"data:)""", page)
    assert "@import" not in page
    assert "<script" not in page
    assert document["sentence"].split(". ")[0] in page
    assert "started anew 2 times" in page
    assert document["compared"].replace("'", "&#39;") in page
    for part in ("verdict", "numbers", "speed", "training", "calibration", "confusion", "disagreements", "equality"):
        assert f'id="{part}"' in page
    assert document["a"]["settings"]["data"]["fingerprint"] in page
    assert len(page) < 3_000_000


def test_what_is_in_mlflow_is_compared_to_the_same_result(
    project: Path, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    sides = [f"{key}=tags.framework = '{framework}'" for key, framework in zip("ab", FRAMEWORKS, strict=True)]
    kept = json.loads((project / "results/comparison/comparison.json").read_text())
    for framework in FRAMEWORKS:
        for seed in (0, 1):
            client.set_tag(_run(client, project, framework, seed).info.run_id, "sweep", "of this test")
    for arguments in (sides, ["sweep=of this test"]):
        compare.main([*arguments, "compare.resamples=200"])  # as in that project's conf
        assert kept["sentence"] in capsys.readouterr().out
        (output,) = (project / "outputs").glob("*-comparison" if arguments == sides else "of this test/comparison")
        again = json.loads((output / "comparison.json").read_text())
        assert again["metrics"] == kept["metrics"]
        assert 'id="disagreements"' in (output / "report.html").read_text()
    run(project, "rm", "-r", "outputs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    {
        "sweep=nothing": "sweep = nothing: no finished runs of it in .*; there are: none",
        "sweep=": "sweep is empty",
        "sweep=a'b": "sweep = a'b: no finished runs of it in",
        "sweep=../b": "sweep = ../b: not the name of a sweep",
        "a=tags.framework='pytorch'": "allowed: sweep=<id>, or both a=<filter> and b=<filter>",
        "a=no|b=no": "MLflow does not understand this filter",
        "a=tags.framework='jax'|b=tags.framework='pytorch'": "a = tags.framework='jax': no finished runs that match",
        "a=tags.seed='0'|b=tags.seed='1'": "a = tags.seed='0': matches 2 configurations",
        "a=tags.framework='pytorch' and tags.seed='0'|b=tags.framework='pytorch' and tags.seed='1'": "none in common",
        "sweep=x|compare.margin.accuracy=0": "compare.margin.accuracy = 0",
    }.items(),
)
def test_a_comparison_that_cannot_be_is_refused(
    project: Path,
    arguments: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(SystemExit) as ended:
        compare.main(arguments.split("|"))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ")
    assert re.search(message, said)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_seed_s_run_carries_everything(client: mlflow.MlflowClient, project: Path, framework: str) -> None:
    found = _run(client, project, framework, 1)
    params, tags, metrics = found.data.params, found.data.tags, found.data.metrics
    facts = json.loads((project / "data/prepared/dataset.json").read_text())
    assert found.info.status == "FINISHED"
    assert found.info.run_name == f"{framework} s1"
    assert tags["mlflow.parentRunId"] == _run(client, project, framework, None).info.run_id
    assert params["train.optimizer.learning_rate"] == "0.006"
    assert params["seed"] == "1"
    assert params["parameters"] == "2770634"
    asked = ["git", "rev-parse", "HEAD", "HEAD^{tree}"]
    head, tree = subprocess.run(asked, cwd=project, capture_output=True, text=True).stdout.split()
    expected = {
        "framework": framework,
        "stage": "train",
        "seed": "1",
        "data.fingerprint": facts["fingerprint"],
        "git.commit": head,
        "git.dirty": "false",
        "git.tree": tree,
        "dvc.stage": f"train@{framework}",
        "deterministic": "true",
        "execution": {"tensorflow": "graph", "pytorch": "eager"}[framework],
    }
    assert {key: tags[key] for key in expected} == expected
    for key in ("group", "config.key", "device", "device.name", "device.threads", "python"):
        assert tags[key]
    package = frameworks.find(framework).packages[0]
    assert {key for key in tags if key.startswith("version.")} == {f"version.{package}"}
    machine = json.loads(Path(client.download_artifacts(found.info.run_id, "environment.json")).read_bytes())
    assert machine["cores_logical"]
    assert machine["memory_bytes"]
    assert machine["versions"][package] == tags[f"version.{package}"]
    assert machine["versions"]["mlflow"]
    for key in ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "time/epoch_seconds"):
        points = client.get_metric_history(found.info.run_id, key)
        assert [point.step for point in points] == [1, 2], key
    steps = client.get_metric_history(found.info.run_id, "train/step_loss")
    assert [point.step for point in steps] == list(range(10))  # 285 images are 4 whole batches and a partial one
    assert metrics["throughput/train_images_per_second"] > 0
    assert metrics["time/compile_seconds"] > 0
    judged = json.loads((project / "results" / framework / "scores.json").read_text())["seeds"]["1"]
    for name, value in judged.items():
        assert metrics[f"test/{name}"] == pytest.approx(value)
    (dataset,) = found.inputs.dataset_inputs
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    assert dataset.dataset.digest == facts["fingerprint"]
    assert lock["stages"]["prepare"]["outs"][0]["md5"] in dataset.dataset.source
    artifacts = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert artifacts >= {"config.json", "environment.json", "history.csv", "manifest.json", "packages.txt"}
    assert tags["code.digest"] == fingerprint.of_code("train", framework=framework)
    assert tags["packages.digest"] == fingerprint.of_json(packages(), 32)
    weights = project / "results" / framework / "models/seed_1/weights.safetensors"
    assert tags["weights.digest"] == fingerprint.of_bytes(weights.read_bytes(), 32)
    evaluated = {item.path.removeprefix("evaluate/") for item in client.list_artifacts(found.info.run_id, "evaluate")}
    assert evaluated == {*PLOTS, "predictions.npz"}
    assert 0 < metrics["time/inference_p50_milliseconds"] <= metrics["time/inference_p95_milliseconds"]
    assert "validation accuracy" in tags["mlflow.note.content"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_group_s_run_aggregates_its_seeds(client: mlflow.MlflowClient, project: Path, framework: str) -> None:
    group = _run(client, project, framework, None)
    seeds = [_run(client, project, framework, seed).data.metrics for seed in (0, 1)]
    for name in ("train/loss", "validation/accuracy", "test/accuracy", "test/loss"):
        values = [metrics[name] for metrics in seeds]
        assert group.data.metrics[name] == pytest.approx(np.mean(values))
        assert group.data.metrics[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))
    assert group.data.metrics["validation/accuracy_ci95_low"] <= group.data.metrics["validation/accuracy"]
    artifacts = {item.path for item in client.list_artifacts(group.info.run_id)}
    assert artifacts >= {"history.csv", "evaluate"}
    evaluated = {item.path for item in client.list_artifacts(group.info.run_id, "evaluate")}
    assert evaluated == {f"evaluate/{name}" for name in (*PLOTS, "learning_curves.png")}


def test_parity_is_shown_kept_and_logged(
    finished: tuple[Path, str, str], client: mlflow.MlflowClient, project: Path
) -> None:
    document = json.loads((project / "results/parity/parity.json").read_text())
    manifest = json.loads((project / "results/parity/manifest.json").read_text())
    assert document["passed"]
    assert manifest["settings"]["train"]["optimizer"]["epsilon"] == 1e-8
    assert manifest["differences"]["pytorch"]["settings"] == manifest["differences"]["pytorch"]["machine"] == {}
    assert {"name", "execution"} <= set(manifest["differences"]["pytorch"]["framework"])
    for level in document["levels"]:
        assert f"ok     {level['name']}" in finished[1]
    experiment = client.get_experiment_by_name("tensorflow-vs-pytorch")
    (found,) = client.search_runs([experiment.experiment_id], "tags.stage = 'parity'")
    assert found.data.tags["parity"] == "passed"
    assert found.data.metrics["parity/trajectory_float64"] == document["levels"][5]["deviation"]
    assert found.data.metrics["parity/batches_passed"] == 1
    assert {item.path for item in client.list_artifacts(found.info.run_id)} >= {"manifest.json", "parity.md"}
    assert "| gradients | ok |" in found.data.tags["mlflow.note.content"]


def test_the_data_have_a_page_once(project: Path, client: mlflow.MlflowClient) -> None:
    facts = json.loads((project / "data/prepared/dataset.json").read_text())
    assert facts["fingerprint"] in (project / "results/data/index.html").read_text()
    done = run(project, "dvc", "repro", "--force", "--single-item", "describe")
    assert done.returncode == 0, done.stderr[-3000:]
    experiment = client.get_experiment_by_name("tensorflow-vs-pytorch")
    (found,) = client.search_runs([experiment.experiment_id], "tags.stage = 'describe'")
    assert found.info.run_id in done.stdout
    assert found.data.tags["dvc.stage"] == "describe"


def test_compare_refuses_what_is_not_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)

    def refused(path: str, old: str, new: str, reason: str, code: int = 1) -> None:
        file = project / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        try:
            with pytest.raises(SystemExit) as ended:
                compare.main(["--params", "params.yaml"])
        finally:
            file.write_text(text)
        said = capsys.readouterr().err
        assert ended.value.code == code
        assert said.startswith("error: refused: ")
        assert reason in said

    failed = '"passed": false,\n  "reason": "gradients differ first at conv1/kernel",\n  "before'
    refused(
        "results/parity/parity.json", '"passed": true,\n  "reason', failed, "gradients differ first at conv1/kernel"
    )
    refused("results/pytorch/manifest.json", '"batch_size": 64', '"batch_size": 32', "train.batch_size: 64 and 32")
    refused("results/tensorflow/manifest.json", '"cores": ', '"cores": 1', "machine.cores: 1")
    traced = "parity was shown for other settings than were trained: model.name: 'other' and 'simple_cnn'"
    refused("results/parity/manifest.json", '"name": "simple_cnn"', '"name": "other"', traced)
    measured = "speed was measured under other settings than were trained: train.batch_size: 32 and 64; run"
    refused("results/speed/speed.json", '"batch_size": 64', '"batch_size": 32', measured, code=2)


def test_a_failed_parity_ends_with_1_and_the_first_difference(project: Path) -> None:
    store = f"sqlite:///{project / 'other.db'}"
    kept = {name: (project / name).read_bytes() for name in ("results/pytorch/trace/trace.json", "params.yaml")}
    kept |= {str(path.relative_to(project)): path.read_bytes() for path in (project / "results/parity").iterdir()}
    trace = project / "results/pytorch/trace/trace.json"
    trace.write_text(trace.read_text().replace('"batch_size": 64', '"batch_size": 63'))
    done = run_module(project, "pipeline.parity", "--params", "params.yaml", MLFLOW_TRACKING_URI=store)
    assert done.returncode == 1
    assert "settings differ first at train.batch_size: 64 and 63" in done.stderr
    assert "look at" in done.stderr
    assert "FAILED settings" in done.stdout
    other = mlflow.MlflowClient(store)
    (found,) = other.search_runs([e.experiment_id for e in other.search_experiments()])
    assert found.data.tags["parity"] == "failed"
    assert not json.loads((project / "results/parity/parity.json").read_text())["passed"]
    for name, content in kept.items():
        (project / name).write_bytes(content)


_READ_BACK = """
import json, os, sys
from pathlib import Path
from pipeline.tracking import store
import mlflow, numpy as np
from pipeline.evaluation import metrics
from pipeline.data.dataset import Dataset
from pipeline.models import backend
assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false" and store
framework, folder = sys.argv[1], Path("results") / sys.argv[1]
mlflow.set_tracking_uri(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
data = Dataset.open(Path("data/prepared"))
saved = backend.load(folder / "models/seed_1")
held_out = data.split("validation")
score = metrics.score(saved.predict(held_out.images), held_out.labels)
test = data.split("test").images[:]
predicted = np.load(folder / "predictions.npz")["logits"][1]
model_id = json.loads((folder / "runs.json").read_text())["seeds"]["1"]["model"]
logged = mlflow.get_logged_model(model_id)
model = mlflow.pyfunc.load_model(f"models:/{model_id}")
served = np.asarray(model.predict(np.asarray(test / 255, np.float32)))
print("RESULT", json.dumps({
    "accuracy": score.accuracy, "loss": score.loss,
    "saved": float(np.abs(saved.predict(test) - predicted).max()), "served": float(np.abs(served - predicted).max()),
    "signature": str(model.metadata.signature.inputs), "status": logged.status.value,
    "model_metrics": sorted({metric.key for metric in logged.metrics}),
}))
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_models_read_back_predict_the_same(client: mlflow.MlflowClient, project: Path, framework: str) -> None:
    (project / "read_back.py").write_text(_READ_BACK)
    done = run_module(project, "read_back", framework, f"framework={framework}")
    (project / "read_back.py").unlink()
    assert "RESULT" in done.stdout, done.stderr[-3000:]
    result = json.loads(done.stdout.split("RESULT", 1)[1])
    logged = _run(client, project, framework, 1).data.metrics
    assert result["accuracy"] == logged["validation/accuracy"]
    assert result["loss"] == logged["validation/loss"]
    assert result["saved"] == 0
    assert result["served"] < 1e-5
    assert "(-1, 28, 28, 1)" in result["signature"]
    assert result["status"] == "READY"
    assert {"validation/accuracy", "test/accuracy"} <= set(result["model_metrics"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_fresh_process_trains_the_same_bits(project: Path, framework: str) -> None:
    """As the stage did, in a warm worker and without a sweep."""
    arguments = (f"framework={framework}", "seeds=[0]", "tracking.log_model=false", "evaluate.plots=false")
    done = run_module(project, "pipeline.train", *arguments, cold=True, **{workers.VARIABLE: ""})
    assert done.returncode == 0, done.stderr[-3000:]
    (again,) = (project / "outputs").glob("*/models/seed_0/weights.safetensors")
    first = project / "results" / framework / "models/seed_0/weights.safetensors"
    try:
        assert again.read_bytes() == first.read_bytes()
    finally:
        run(project, "rm", "-r", "outputs")


def test_repro_again_runs_nothing(project: Path) -> None:
    done = run(project, "dvc", "repro")
    assert done.returncode == 0
    assert "Running stage" not in done.stdout
    assert "up to date" in done.stdout


def test_an_edit_of_conf_reruns_what_depends_on_it_at_once(project: Path) -> None:
    edit(project / "conf/compare/default.yaml", accuracy="0.001")
    done = run(project, "dvc", "repro")
    assert done.returncode == 0, done.stderr[-3000:]
    ran = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert ran == ["config", "compare"]
    assert yaml.safe_load((project / "params.yaml").read_text())["compare"]["margin"]["accuracy"] == 0.001
    document = json.loads((project / "results/comparison/comparison.json").read_text())
    assert document["metrics"]["accuracy"]["equivalence"]["margin"] == 0.001


def test_models_restored_without_their_runs_are_evaluated_in_new_runs(project: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'other.db'}"
    done = run_module(
        project, "pipeline.evaluate", "--params", "params.yaml", "framework=pytorch", MLFLOW_TRACKING_URI=store
    )
    assert done.returncode == 0, done.stderr[-3000:]
    other = mlflow.MlflowClient(store)
    found = other.search_runs([e.experiment_id for e in other.search_experiments()])
    origins = json.loads((project / "results/pytorch/runs.json").read_text())
    assert {run.data.tags["origin.run"] for run in found} == {
        origins["group"],
        *(seed["run"] for seed in origins["seeds"].values()),
    }
    assert all("test/accuracy" in run.data.metrics for run in found)
    assert {run.info.status for run in found} == {"FINISHED"}
    assert {run.data.tags["git.commit"] for run in found} == {run(project, "git", "rev-parse", "HEAD").stdout.strip()}
    assert sorted(run.data.tags.get("seed", "") for run in found) == ["", *map(str, origins["seeds"])]
    assert "SQL" not in done.stderr
    done = run_module(project, "pipeline.sync", MLFLOW_TRACKING_URI=store)
    assert done.returncode == 0, done.stderr


def test_a_temporary_experiment_lands_in_the_same_store(project: Path, client: mlflow.MlflowClient) -> None:
    run(project, "git", "checkout", "-q", "--", ".")
    before = sorted(path.name for path in project.iterdir())
    done = run(project, "dvc", "exp", "run", "--temp", "-n", "short", "-S", "train.epochs=1", "train@pytorch")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    experiment = client.get_experiment_by_name("tensorflow-vs-pytorch")
    found = client.search_runs([experiment.experiment_id], "tags.`dvc.exp` = 'short'")
    assert sorted(run.info.run_name for run in found) == ["pytorch short", "pytorch short s0", "pytorch short s1"]
    assert {run.data.params["train.epochs"] for run in found} == {"1"}
    assert all(f"{project}/mlartifacts" in run.info.artifact_uri for run in found)
    assert sorted(path.name for path in project.iterdir()) == before
