"""A run again from what it logged, bit for bit; and every planted difference named."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from own_images import fill
from project_copy import TINY, clone_project, edit, run, run_module, start

from pipeline.core.machine import cpu_features, machine, packages
from pipeline.reproduction import environment
from pipeline.reproduction.evidence import Evidence, compare

pytestmark = pytest.mark.xdist_group("rerun")
STEPS = [(0, 2.3), (1, 1.9), (2, 1.5)]
WEIGHTS = {"conv0/kernel": np.ones((3, 3), np.float32), "dense2/bias": np.zeros(10, np.float32)}


def evidence(**changed: Any) -> Evidence:
    series = {"train/step_loss": STEPS, "validation/loss": [(1, 0.5)], "validation/accuracy": [(1, 0.9)]}
    return Evidence(
        **{"series": series, "digest": "ab", "weights": WEIGHTS, "logits": np.eye(3, dtype=np.float32)} | changed
    )


def test_equal_evidence_is_the_same_and_says_what_was_compared() -> None:
    found = compare(evidence(), evidence())
    assert found.same
    assert found.compared == (
        "3 x train/step_loss",
        "1 x validation/loss",
        "1 x validation/accuracy",
        "weights (2 arrays, 19 numbers)",
        "test logits (3 x 3)",
    )


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        (
            {"series": {"train/step_loss": [(0, 2.3), (1, np.nextafter(1.9, 2)), (2, 1)]}},
            "train/step_loss at step 1: 1.9 then",
        ),
        ({"series": {"train/step_loss": STEPS[:2]}}, "train/step_loss: 3 points then, 2 now"),
        ({"series": {"validation/loss": [(1, 0.4)]}}, "validation/loss at step 1: 0.5 then, 0.4 now"),
        (
            {"weights": WEIGHTS | {"dense2/bias": np.full(10, 1e-9, np.float32)}},
            "weights of dense2/bias: 10 of 10 differ, by 1e-09",
        ),
        ({"weights": {"conv0/kernel": WEIGHTS["conv0/kernel"]}}, "weights of dense2/bias: not there now"),
        ({"weights": WEIGHTS | {"dense2/bias": -WEIGHTS["dense2/bias"]}}, "weights of dense2/bias: 0 of 10 differ"),
        (
            {"logits": np.eye(3, dtype=np.float32) * np.array([[1], [2], [1]], np.float32)},
            "test logits: 1 of 3 images differ, first of test image 1",
        ),
        ({"weights": {}, "digest": "cd"}, "weights: another digest"),
    ],
)
def test_the_first_bit_that_differs_is_named(changed: dict[str, Any], first: str) -> None:
    if "series" in changed:
        changed = {"series": {**evidence().series, **changed["series"]}}
    found = compare(evidence(), evidence(**changed))
    assert not found.same
    assert found.difference.startswith(first)


def test_without_weights_and_logits_nothing_is_the_same() -> None:
    bare = evidence(weights={}, digest="", logits=None)
    found = compare(bare, evidence())
    assert not found.same
    assert not found.difference
    assert found.missing == ("weights", "test logits")


def test_the_environment_s_differences_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine()
    facts = {"python": here.python, "cpu": here.cpu, "cpu_features": list(cpu_features()), "gpus": [], "variables": {}}
    assert environment.differences(facts, packages()) == []
    name, _, version = packages()[3].partition("==")
    other = [*packages()[:3], f"{name}==0.0.1", *packages()[4:]]
    expected = f"packages: {name.lower().replace('_', '-')} 0.0.1 then, {version} now"
    assert environment.differences(facts, other) == [expected]
    assert environment.differences(facts | {"python": "3.9.1"}, packages()) == [
        f"Python: 3.9.1 then, {here.python} now"
    ]
    features = environment.differences(facts | {"cpu_features": ["avx1024"]}, packages())[0]
    assert features.startswith("instruction sets: ")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    chosen = environment.variables({"variables": {"ONEDNN_MAX_CPU_ISA": "AVX2"}})
    assert chosen["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.fixture(scope="module")
def project(finished: tuple[Path, str, str]) -> Path:
    return finished[0]


@pytest.fixture(scope="module")
def client(project: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def named(client: mlflow.MlflowClient, name: str) -> Any:
    experiment = client.get_experiment_by_name("tensorflow-vs-pytorch")
    return client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")


def test_a_parent_s_seeds_come_back_bit_for_bit_and_both_are_tagged(project: Path, client: mlflow.MlflowClient) -> None:
    group = json.loads((project / "results/tensorflow/runs.json").read_text())["group"]
    before = sorted(path.name for path in project.iterdir())
    done = run_module(project, "pipeline.rerun", group)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.endswith("same bits: all 2 seeds\n")
    for seed in (0, 1):
        (again,) = named(client, f"rerun of tensorflow s{seed}")
        first = client.get_run(again.data.tags["rerun.of"])
        assert first.info.run_name == f"tensorflow s{seed}"
        assert first.data.tags["rerun.by"] == again.info.run_id
        assert first.data.tags["rerun.result"] == again.data.tags["rerun.result"] == "same bits"
        assert first.data.tags["weights.digest"] == again.data.tags["weights.digest"]
    leaders = client.search_runs([again.info.experiment_id], "tags.leaderboard = 'true'")
    assert not any(run.info.run_name.startswith("rerun") for run in leaders)
    assert sorted(path.name for path in project.iterdir()) == before
    assert run(project, "git", "worktree", "list").stdout.count("\n") == 1
    assert not run(project, "git", "status", "--porcelain", "pipeline", "conf").stdout


def test_a_rerun_that_was_killed_takes_no_name_and_leaves_nothing(
    project: Path, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    settings = {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = start(project, "pipeline.rerun", "pytorch s1", cold=True, **settings)
    assert process.stdout
    assert any("epoch 1/2" in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(list(tmp_path.glob("rerun-*"))) == 2
    leaders = client.search_runs(
        [client.get_experiment_by_name("tensorflow-vs-pytorch").experiment_id], "tags.leaderboard = 'true'"
    )
    assert not any("rerun" in run.info.run_name for run in leaders)
    done = run_module(project, "pipeline.rerun", "pytorch s1", **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.startswith("pytorch s1: name; 1 seed to train again\n")
    assert not list(tmp_path.glob("rerun-*"))
    assert run(project, "git", "worktree", "list").stdout.count("\n") == 1
    empty = run_module(project, "pipeline.rerun", "")
    assert empty.returncode == 2
    assert "names nothing" in empty.stderr


def test_lineage_tells_where_from_and_what_came_of_it(project: Path, client: mlflow.MlflowClient) -> None:
    done = run_module(project, "pipeline.lineage", "tensorflow s0")
    assert done.returncode == 0, done.stderr
    card = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.stdout.splitlines() if "  " in line)
    commit = run(project, "git", "rev-parse", "HEAD").stdout.strip()
    assert commit in card["code"]
    assert card["DVC"] == "stage train@tensorflow"
    assert card["folder"] == "results/tensorflow"
    assert card["differs"] == "in nothing from conf/ as it is now"
    assert card["command"] == "python -m pipeline.train --params params.yaml framework=tensorflow"
    assert card["above"].startswith("tensorflow (")
    assert card["rerun by"].startswith("rerun of tensorflow s0 (")
    assert card["rerun by"].endswith(": same bits")
    assert card["compared in"].startswith("compare simple_cnn")
    compared = run_module(project, "pipeline.lineage", "results/comparison").stdout
    assert "\ncompares" in compared
    assert "tensorflow s0" in compared
    assert card["model"].startswith("tensorflow-simple_cnn-s0 (m-")
    model = re.search(r"m-[0-9a-f]{32}", card["model"])
    assert model
    by_model = run_module(project, "pipeline.lineage", model[0])
    assert "tensorflow s0" in by_model.stdout
    assert run_module(project, "pipeline.lineage", commit[:9]).stdout.startswith(f"{commit[:9]}: commit")
    nothing = run_module(project, "pipeline.lineage", "nothing")
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("error: nothing: names no run in this store; allowed: the id or name of a run")


def test_another_number_of_threads_is_named(project: Path) -> None:
    done = run_module(project, "pipeline.rerun", "pytorch s0", "train.threads=3")
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert "differs: settings: train.threads=3; device.threads: " in done.stderr
    assert "train/step_loss at step " in done.stderr


def test_a_dirty_tree_with_a_new_file_comes_back_and_edited_code_is_named(
    project: Path, client: mlflow.MlflowClient
) -> None:
    shutil.copy(project / "conf/model/simple_cnn.yaml", project / "conf/model/mine.yaml")
    edit(project / "conf/train/default.yaml", epochs="1")
    trained = run_module(
        project, "pipeline.train", "framework=pytorch", "model=mine", "seeds=[7]", *TINY, "hydra.run.dir=outputs/x"
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    run(project, "git", "checkout", "-q", "--", "conf")
    (project / "conf/model/mine.yaml").unlink()
    done = run_module(project, "pipeline.rerun", "outputs/x")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "and changes, tree" in done.stdout
    assert done.stdout.endswith("\nsame bits\n")

    source = project / "pipeline/data/plan.py"
    text = source.read_text()
    source.write_text(text + "\n_PLANTED = 1\n")
    done = run_module(project, "pipeline.rerun", "outputs/x", "--here")
    source.write_text(text)
    assert "not as then: code: conf/model/mine.yaml, conf/train/default.yaml, pipeline/data/plan.py" in done.stdout
    assert done.returncode == 0, done.stderr  # that edit moves no bit


def test_other_packages_a_lost_file_and_a_lost_commit_are_named(project: Path, client: mlflow.MlflowClient) -> None:
    (run_of,) = [run for run in named(client, "pytorch s1") if run.data.tags["stage"] == "train"]
    folder = Path(run_of.info.artifact_uri.removeprefix("file://"))
    listed, facts = folder / "packages.txt", folder / "environment.json"
    kept = listed.read_text(), facts.read_text()
    listed.write_text(re.sub(r"(?m)^numpy==.*$", "numpy==1.0.0", kept[0]))
    facts.write_text(kept[1].replace('"left_out": []', '"left_out": ["big.bin (9.0 MiB)"]'))
    done = run_module(project, "pipeline.rerun", run_of.info.run_id)
    listed.write_text(kept[0])
    facts.write_text(kept[1])
    assert "not as then: not kept with the run: big.bin (9.0 MiB)\n" in done.stdout
    assert f"not as then: packages: numpy 1.0.0 then, {np.__version__} now\n" in done.stdout
    assert "same bits: 4 x train/step_loss" in done.stdout or "same bits: " in done.stdout
    assert "(although not kept with the run: big.bin (9.0 MiB); packages: numpy" in done.stdout

    client.set_tag(run_of.info.run_id, "git.commit", "0" * 40)
    done = run_module(project, "pipeline.rerun", run_of.info.run_id)
    assert done.returncode == 2
    assert f"error: git.commit = {'0' * 40}: is not in this clone; `git fetch --all`" in done.stderr


def test_a_run_that_is_no_training_is_refused(project: Path, client: mlflow.MlflowClient) -> None:
    experiment = client.get_experiment_by_name("tensorflow-vs-pytorch")
    (parity,) = client.search_runs([experiment.experiment_id], "tags.stage = 'parity'")
    done = run_module(project, "pipeline.rerun", parity.info.run_id)
    assert done.returncode == 2
    assert "of the stage parity, with no training below it" in done.stderr
    broken = client.create_run(experiment.experiment_id, run_name="broken", tags={"stage": "train", "seed": "0"})
    done = run_module(project, "pipeline.rerun", broken.info.run_id)
    assert done.returncode == 2
    assert "is RUNNING; only a finished training can be compared" in done.stderr


def test_changed_images_are_named_and_the_old_ones_are_found_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill("images", cat=30, dog=30)
    project, images = clone_project(tmp_path / "project"), tmp_path / "images"
    settings = ("data=folder", f"data.root={images}", "data.max_train=null", "data.max_test=null")
    options = ("framework=pytorch", "seeds=[0]", "train.epochs=1", *TINY, "evaluate.plots=false")
    trained = run_module(project, "pipeline.train", *options, *settings, "hydra.run.dir=outputs/own")
    assert trained.returncode == 0, trained.stderr[-3000:]
    first = sorted(path for path in images.rglob("*.png"))[0]
    (images / first.relative_to(images).parent / "new.png").write_bytes(first.read_bytes())
    found = run_module(project, "pipeline.rerun", "outputs/own")
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "from data/cache/" in found.stdout
    for folder in (project / "data/cache").glob("*/"):
        shutil.rmtree(folder)
    done = run_module(project, "pipeline.rerun", "outputs/own")
    assert done.returncode == 1, done.stdout[-3000:]
    assert "new.png (new)" in done.stderr
    assert "error: 1 of 1 seeds: not same bits; differs: data: fingerprint " in done.stderr


def test_data_whose_bytes_are_not_those_of_their_fingerprint_are_not_used(project: Path) -> None:
    path = project / "data/prepared/train/labels.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.chmod(0o644)
    path.unlink()  # DVC may have linked it to its cache
    path.write_bytes(content)
    done = run_module(project, "pipeline.rerun", "pytorch s0")
    assert "its bytes are not those of its fingerprint" in done.stdout
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "from the cache or a remote of DVC" in done.stdout


def test_an_experiment_is_found_after_a_push_and_a_pull(project: Path, tmp_path: Path) -> None:
    run(project, "git", "checkout", "-q", "--", ".")
    done = run(project, "dvc", "exp", "run", "--temp", "-n", "away", "-S", "train.epochs=1", "train@pytorch")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    card = run_module(project, "pipeline.lineage", "away").stdout
    assert re.search(r"DVC +stage train@pytorch, experiment away \(commit [0-9a-f]{10}\), on [0-9a-f]{10}", card)
    assert re.search(r"code +commit [0-9a-f]{40} on main", card)
    assert re.search(r"differs +train.epochs=1\n", card)

    for command in (
        ["git", "init", "-q", "--bare", str(tmp_path / "bare")],
        ["git", "push", "-q", str(tmp_path / "bare"), "HEAD:refs/heads/main"],
        ["dvc", "remote", "add", "--local", "-d", "shared", str(tmp_path / "shared")],
        ["dvc", "exp", "push", str(tmp_path / "bare"), "away"],
    ):
        assert (done := run(project, *command)).returncode == 0, done.stderr
    other = tmp_path / "other"
    run(tmp_path, "git", "clone", "-q", "-b", "main", str(tmp_path / "bare"), str(other))
    for command in (
        ["dvc", "remote", "add", "--local", "-d", "shared", str(tmp_path / "shared")],
        ["dvc", "exp", "pull", "origin", "away"],
    ):
        assert (done := run(other, *command)).returncode == 0, done.stderr
    runs = json.loads((project / "results/pytorch/runs.json").read_text())
    card = run_module(other, "pipeline.lineage", "away").stdout
    assert "are in another MLflow store" in card
    assert runs["group"] not in card  # that is the workspace's, not the experiment's
    refused = run_module(other, "pipeline.rerun", "away")
    assert refused.returncode == 2
    assert "set MLFLOW_TRACKING_URI to that one" in refused.stderr
    found = run_module(other, "pipeline.rerun", "away", MLFLOW_TRACKING_URI=f"sqlite:///{project / 'mlflow.db'}")
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert found.stdout.endswith("same bits: all 2 seeds\n")

    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'empty.db'}"}
    unknown = run_module(project, "pipeline.lineage", "results/pytorch", **store)
    assert unknown.returncode == 2
    assert "the runs of its runs.json are not in this store" in unknown.stderr
    run_module(project, "pipeline.evaluate", "--params", "params.yaml", "framework=pytorch", **store)
    card = run_module(project, "pipeline.lineage", "results/pytorch", **store).stdout
    assert card.startswith("results/pytorch: folder\n")
    assert re.search(rf"restored from +{runs['group']}\n", card)


def test_a_run_of_a_repository_without_a_commit_comes_back(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    shutil.rmtree(project / ".git")
    run(project, "git", "init", "-q")
    options = ("framework=pytorch", "seeds=[0]", "train.epochs=1", *TINY, "evaluate.plots=false")
    trained = run_module(project, "pipeline.train", *options, "hydra.run.dir=outputs/first")
    assert trained.returncode == 0, trained.stderr[-3000:]
    done = run_module(project, "pipeline.rerun", "outputs/first")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "code: commit none and changes, tree " in done.stdout
    assert done.stdout.endswith("\nsame bits\n")
