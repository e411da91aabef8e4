"""On a machine with a GPU, and skipped elsewhere: `make test ARGS='-m gpu'`. Frameworks that are not installed are left
out. `tests/benchmark_gpu.py` has the figures.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from project_copy import clone_project, run_module
from safetensors.numpy import load_file

from pipeline.core import gpus
from pipeline.models import device

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus.visible(), reason="there is no GPU")]
FRAMEWORKS = [name for name, module in (("tensorflow", "tensorflow"), ("pytorch", "torch")) if find_spec(module)]
ONE = ("train.device=gpu", "train.epochs=1", "seeds=[0]", "evaluate.plots=false", "tracking.log_model=false")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_framework_computes_on_the_gpu_that_nvml_names(framework: str) -> None:
    card = gpus.used()
    assert card
    assert device.ask(framework) == device.Ability(card.name, "")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("network", ["simple_cnn", "lenet5", "resnet8"])
def test_a_training_gives_the_same_bits_twice_and_streamed(tmp_path: Path, framework: str, network: str) -> None:
    project, found = clone_project(tmp_path / "project"), []
    for name, more in (("a", ()), ("b", ()), ("c", ("train.memory_mebibytes=2",))):
        chosen = (f"framework={framework}", f"model={network}", f"hydra.run.dir=outputs/{name}", *more)
        done = run_module(project, "pipeline.train", *ONE, *chosen)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = project / "outputs" / name / "models/seed_0"
        assert json.loads((folder / "classifier.json").read_text())["device"]["type"] == "gpu"
        found.append({key: value.tobytes() for key, value in load_file(folder / "weights.safetensors").items()})
    assert found[0] == found[1]
    assert found[0] == found[2]


def test_both_frameworks_are_equal_on_the_gpu_and_to_the_cpu(tmp_path: Path) -> None:
    """The levels of `parity`, float64 among them, between the frameworks and between the two devices."""
    if len(FRAMEWORKS) < 2:
        pytest.skip("one framework alone")
    project = clone_project(tmp_path / "project")
    for stage in ("prepare", *(f"trace framework={name}" for name in FRAMEWORKS), "parity"):
        module, *more = stage.split()
        done = run_module(project, f"pipeline.{module}", "--params", "params.yaml", *more)
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((project / "results/parity/parity.json").read_text())
    assert report["passed"]


def test_a_hidden_gpu_is_not_used(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    for framework in FRAMEWORKS:
        chosen = (f"framework={framework}", "hydra.run.dir=outputs/one")
        done = run_module(project, "pipeline.train", *ONE[1:], *chosen, CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 0, done.stderr
        assert " on cpu, " in done.stdout
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def test_a_recorded_step_has_the_bits_of_the_eager_one_and_its_compilation_is_close(tmp_path: Path) -> None:
    """Augmentation, clipping, dropout, batch norm, and two sizes of batches."""
    if "pytorch" not in FRAMEWORKS:
        pytest.skip("PyTorch alone records steps")
    from benchmark_gpu import apart, create, data, train

    dataset, found = data(tmp_path / "data", 300), {}
    more = ("train.augment={pad_and_crop: 2, flip: true, cutout: 4}", "train.clip_norm=0.5", "train.batch_size=64")
    for execution in ("eager", "graph", "compiled"):
        classifier = create(dataset, "model=resnet8", *more, "train.device=gpu", f"train.execution={execution}")
        found[execution] = train(classifier, dataset)["arrays"]
        assert classifier.execution == execution
    assert apart(found["graph"], found["eager"]) == 0
    assert apart(found["compiled"], found["eager"]) < 1e-2
