"""Adding a framework is one `Classifier` and one entry: NumPy goes the whole way, as a third beside the two."""

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from numpy_backend import NUMPY
from project_copy import clone_project, run_module
from tracing import noise

from pipeline import compare, evaluate, parity, speed, trace, train
from pipeline.config.compose import compose, write
from pipeline.config.schema.model import ModelConfig
from pipeline.core import frameworks
from pipeline.core.errors import UserError

pytestmark = pytest.mark.xdist_group("registry")
NETWORK = {
    "name": "tiny",
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "layers": [
        {"type": "conv", "filters": 2, "kernel_size": 3, "activation": "tanh"},
        {"type": "flatten"},
        {"type": "dense", "units": "classes"},
    ],
}
SETTINGS = (
    *("seeds=[0,1]", "train.epochs=2", "train.batch_size=32", "train.threads=1", "train.execution=eager"),
    *("trace.steps=8", "trace.batch_size=16", "evaluate.plots=false", "tracking.system_metrics_seconds=null"),
    *(
        "compare.speed.restarts=2",
        "compare.speed.rounds=1",
        "compare.speed.block_seconds=0.02",
        "compare.resamples=200",
        "train.checkpoint_minutes=null",
    ),
)


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """NumPy is a framework for as long as these tests last."""
    frameworks.register(NUMPY)
    yield
    del frameworks.FRAMEWORKS[NUMPY.name]


@pytest.fixture(scope="module")
def project(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that the stages of three frameworks leave, `compare` apart."""
    folder = clone_project(tmp_path_factory.mktemp("registry") / "project")
    noise(folder / "data/prepared", (6, 5, 1))
    write(compose(SETTINGS).model_copy(update={"model": ModelConfig.model_validate(NETWORK)}), folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("signal.signal", lambda *_: None)
        for name in ("tensorflow", "pytorch"):
            for stage in ("trace", "train", "evaluate"):
                done = run_module(folder, f"pipeline.{stage}", "--params", "params.yaml", f"framework={name}")
                assert done.returncode == 0, done.stderr
        for module in (trace, train, evaluate):
            module.main(["--params", "params.yaml", "framework=numpy"])
        parity.main(["--params", "params.yaml"])
        speed.main(["--params", "params.yaml"])
        yield folder


def test_a_framework_that_is_not_registered_is_refused() -> None:
    with pytest.raises(UserError, match=r"^framework = 'jax': allowed: tensorflow, pytorch"):
        compose(["framework=jax"])


def test_the_reference_and_every_other_arm_compute_the_same(project: Path) -> None:
    document = json.loads((project / "results/parity/parity.json").read_text())
    assert document["passed"]
    assert document["reference"] == "tensorflow"
    by_arm = {arm: [level for level in document["levels"] if level["arm"] == arm] for arm in ("pytorch", "numpy")}
    assert [level["name"] for level in by_arm["numpy"]] == [level["name"] for level in by_arm["pytorch"]]
    deviations = {level["name"]: level["deviation"] for level in by_arm["numpy"]}
    assert 0 < deviations["trajectory float64"] < 1e-12
    assert len(by_arm["numpy"]) == 8


def test_a_third_framework_that_differs_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "results/numpy/trace/arrays.npz"
    content = dict(np.load(path))
    kept = path.read_bytes()
    content["float64/outputs"][0, 0] *= 1 + 1e-6
    np.savez(path, **content)
    with pytest.raises(SystemExit) as ended:
        parity.main(["--params", "params.yaml"])
    assert ended.value.code == 1
    reason = json.loads((project / "results/parity/parity.json").read_text())["reason"]
    assert reason.startswith("NumPy: outputs differ first at outputs of the first batch: relative ")
    path.write_bytes(kept)
    parity.main(["--params", "params.yaml"])


def test_its_runs_are_in_mlflow_as_any_other(project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    runs = client.search_runs([experiment.experiment_id], "tags.framework = 'numpy' and tags.stage = 'train'")
    assert {run.info.run_name for run in runs} == {"numpy tiny", "numpy tiny s0", "numpy tiny s1"}
    for run in runs:
        assert run.info.status == "FINISHED"
        assert {"validation/accuracy", "test/accuracy", "throughput/train_images_per_second"} <= run.data.metrics.keys()
        assert run.data.tags["version.numpy"] == np.__version__
        assert run.data.tags["mlflow.runColor"] == NUMPY.style.colour
        assert run.data.tags["ui_side"] == "NumPy"


def test_it_is_trained_to_what_the_others_are_trained_to(project: Path) -> None:
    outputs = {
        name: np.load(project / f"results/{name}/predictions.npz")["logits"]
        for name in ("tensorflow", "pytorch", "numpy")
    }
    for name in ("pytorch", "numpy"):
        assert np.abs(outputs[name] - outputs["tensorflow"]).max() < 1e-4


def test_it_is_timed_and_compared_with_the_reference(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timed = json.loads((project / "results/speed/speed.json").read_text())
    assert list(timed["arms"]) == ["tensorflow", "pytorch", "numpy"]
    assert timed["ratios"].keys() == timed["by_restart"].keys() == {"pytorch", "numpy"}
    for kind, ratio in timed["ratios"]["numpy"].items():
        by_restart = timed["by_restart"]["numpy"][kind]
        assert ratio["n"] == len(by_restart) == len(timed["restarts"]) == 2
        assert ratio["mean"] == pytest.approx(np.prod(by_restart) ** 0.5)
    assert all(ratio["low"] <= ratio["mean"] <= ratio["high"] for ratio in timed["ratios"]["numpy"].values())
    compare.main(["--params", "params.yaml"])
    said = capsys.readouterr().out
    assert "TensorFlow \u2212 NumPy" in said
    assert "TensorFlow \u2212 PyTorch" in said
    for arm, title in (("numpy", "NumPy"), ("pytorch", "PyTorch")):
        document = json.loads((project / f"results/comparison/{arm}/comparison.json").read_text())
        assert (document["a"]["name"], document["b"]["name"]) == ("TensorFlow", title)
        assert {level["arm"] for level in document["parity"]["levels"]} == {arm}
        assert document["verdict"] in ("equivalent", "inconclusive")
        page = (project / f"results/comparison/{arm}/report.html").read_text()
        assert f"TensorFlow and {title}: tiny on" in page
