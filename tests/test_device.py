"""Which device is used, and how that is said. A machine without a GPU stands in for one by a copy of NVML's answers."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from project_copy import clone_project, run_module

from pipeline.config.compose import compose
from pipeline.core import gpus, machine
from pipeline.core.errors import UserError
from pipeline.core.gpus import Gpu
from pipeline.diagnosis import checks
from pipeline.models import device
from pipeline.models.backend import refusing_nondeterminism
from pipeline.models.device import Ability, Choice, choose

CARDS = {"GPU-aaaa-1": 80, "GPU-aabb-2": 40, "GPU-cccc-3": 24}
"""UUIDs and GiB."""


class _Error(Exception):
    pass


def nvml(divided: bool = False) -> Any:
    """NVML of a machine with three GPUs; `divided`: the second is two MIG devices of 20 GiB."""
    names = list(CARDS)

    def memory(handle: str) -> Any:
        size = 20 if handle.startswith("MIG-") else CARDS[handle]
        return SimpleNamespace(total=size << 30, free=(size << 30) - (1 << 30))

    def by_uuid(name: str) -> str:
        if name in ("MIG-x", "MIG-y"):
            return name
        raise _Error

    def mode(handle: str) -> list[int]:
        if handle == "GPU-cccc-3":
            raise _Error  # not supported
        return [int(divided and handle == "GPU-aabb-2"), 0]

    return SimpleNamespace(
        NVMLError=_Error,
        NVML_DEVICE_MIG_ENABLE=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda position: names[position],
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetName=lambda handle: f"Card {handle}",
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetUUID=lambda handle: handle,
        nvmlSystemGetDriverVersion=lambda: "570",
        nvmlDeviceGetMigMode=mode,
        nvmlDeviceGetMigDeviceHandleByIndex=lambda handle, position: ("MIG-x", "MIG-y")[position],
    )


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three GPUs."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus.installed.cache_clear()
    yield
    gpus.installed.cache_clear()


@pytest.mark.parametrize(
    ("variable", "seen", "gigabytes"),
    [
        (None, ["0", "1", "2"], 80),
        ("", [], None),
        ("-1", [], None),
        ("2,0", ["2", "0"], 24),
        ("1, 7, 0", ["1"], 40),  # CUDA ignores what follows a name that is none
        ("GPU-aabb", ["GPU-aabb"], 40),
        ("GPU-zzzz,0", [], None),
        ("MIG-y", ["MIG-y"], 20),
    ],
)
def test_the_gpu_that_is_used_is_the_first_that_cuda_sees(
    monkeypatch: pytest.MonkeyPatch, three: None, variable: str | None, seen: list[str], gigabytes: int | None
) -> None:
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert gpus.visible() == seen
    card = gpus.used()
    assert (card and card.memory_bytes >> 30) == gigabytes
    monkeypatch.setattr(machine, "free_bytes", lambda: 300 << 30)
    expected = 100 << 30 if gigabytes is None else (gigabytes - 1) << 29
    assert machine.memory_limit(None, "gpu") == expected


def test_each_process_of_several_uses_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, three: None) -> None:
    chosen = []
    for position in range(4):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        gpus.use_one(position)
        chosen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert chosen == ["0", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    gpus.use_one(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpus.use_one(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_of_a_divided_gpu_the_first_part_is_used(monkeypatch: pytest.MonkeyPatch, three: None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(divided=True))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.used() == Gpu("Card MIG-x", 20 << 30, "570", "MIG-x")
    assert gpus.free_bytes() == 19 << 30


@pytest.mark.parametrize(
    ("asked", "unable", "chosen"),
    [
        ("auto", "", Choice("gpu", "")),
        ("cpu", "", Choice("cpu", "")),
        ("gpu", "", Choice("gpu", "")),
        ("gpu", "tensorflow", Choice("gpu", "")),
        (
            "auto",
            "tensorflow",
            Choice(
                "cpu", "TensorFlow cannot use the GPU (missing: x.so): all compute on the CPU (train.device = auto)"
            ),
        ),
    ],
)
def test_a_gpu_is_taken_where_all_frameworks_can_use_it(
    monkeypatch: pytest.MonkeyPatch, three: None, asked: str, unable: str, chosen: Choice
) -> None:
    found = {name: Ability("Card", "") for name in ("tensorflow", "pytorch")}
    if unable:
        found[unable] = Ability("", "missing: x.so")
    monkeypatch.setattr(device, "abilities", lambda _: found)
    assert choose(asked, "pytorch") == chosen
    if asked == "gpu" and unable:
        with pytest.raises(UserError, match=r"train\.device = gpu: TensorFlow cannot use the GPU \(missing: x\.so\)"):
            choose(asked, unable)


def test_an_execution_that_a_framework_has_on_a_gpu_alone_is_refused_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, three: None
) -> None:
    monkeypatch.setattr(
        device, "abilities", lambda _: {name: Ability("Card", "") for name in ("tensorflow", "pytorch")}
    )
    train = compose(["train.execution=graph"]).train
    assert device.require_device(train, "pytorch") == Choice("gpu", "")
    on_cpu = train.model_copy(update={"device": "cpu"})
    assert device.require_device(on_cpu, "tensorflow") == Choice("cpu", "")
    with pytest.raises(UserError, match="PyTorch has none on the CPU; allowed: auto, eager, compiled"):
        device.require_device(on_cpu, "pytorch")


def test_what_a_framework_said_is_kept_for_the_same_machine(
    monkeypatch: pytest.MonkeyPatch, three: None, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(gpus, "used", lambda: cards[os.environ.get("CUDA_VISIBLE_DEVICES", "0")])
    cards = {"0": Gpu("A", 1, "570", "x"), "1": Gpu("B", 1, "570", "y"), "2": Gpu("A", 1, "570", "z")}
    monkeypatch.setattr(device, "main_root", lambda: tmp_path)
    monkeypatch.setattr(device, "ask", lambda name: asked.append(name) or Ability("Card", ""))
    for _ in range(2):
        device.abilities.cache_clear()
        assert set(device.abilities(None)) == {"tensorflow", "pytorch"}
    assert asked == ["tensorflow", "pytorch"]
    for name, times in (("1", 4), ("0", 4), ("2", 4), ("1", 4)):  # all kinds are kept, and two of one kind are one
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
        device.abilities.cache_clear()
        device.abilities(name)
        assert len(asked) == times
    (tmp_path / "data/cache/devices.json").write_text("{")
    device.abilities.cache_clear()
    device.abilities("1")
    assert len(asked) == 6
    device.abilities.cache_clear()


def test_each_framework_says_in_a_process_of_its_own_that_there_is_no_gpu_here() -> None:
    if gpus.installed():
        pytest.skip("there is one")
    for name in ("tensorflow", "pytorch"):
        said = device.ask(name)
        assert said.name == ""
        assert said.reason == "it finds none"


def test_a_framework_that_does_not_answer_is_named_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.ask("theano").reason.startswith("pipeline.core.errors.UserError: framework = 'theano'")


@pytest.mark.parametrize("framework", ["tensorflow", "pytorch"])
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, framework: str) -> None:
    if gpus.installed():
        pytest.skip("there is one")
    project = clone_project(tmp_path / "project")
    done = run_module(project, "pipeline.train", f"framework={framework}", "train.device=gpu", "train.epochs=1")
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: train.device = gpu: there is no NVIDIA GPU to use; allowed here: cpu, auto\n"
    assert not (project / "outputs").exists()


def test_doctor_tells_which_framework_uses_the_gpu(monkeypatch: pytest.MonkeyPatch, three: None) -> None:
    answers = {"tensorflow": Ability("", "missing: libcudnn.so.9"), "pytorch": Ability("Card", "")}
    monkeypatch.setattr(device, "ask", answers.__getitem__)
    monkeypatch.setattr(device, "abilities", lambda _: answers)
    found = list(checks._gpu(compose))
    assert ("ok", "PyTorch uses Card") in found
    assert any(mark == "warn" and "TensorFlow uses none (missing: libcudnn.so.9)" in said for mark, said in found)
    assert any(mark == "warn" and "train.device = auto: pytorch on the cpu" in said for mark, said in found)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [mark for mark, _ in checks._gpu(compose)] == ["warn"]


def test_what_is_not_deterministic_is_refused_by_name() -> None:
    said = "put_ with accumulate=False does not have a deterministic implementation, but you set it. More."
    with (
        pytest.raises(UserError, match=r"train\.deterministic = true: PyTorch: put_ with .*; allowed here: false, or"),
        refusing_nondeterminism("PyTorch", RuntimeError),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="out of memory"), refusing_nondeterminism("PyTorch", RuntimeError):
        raise RuntimeError("out of memory")


def test_tensorflow_finds_every_library_of_cuda_in_this_environment() -> None:
    assert _said("from pipeline.models.tensorflow.libraries import *; print(len(LIBRARIES), missing_libraries())") == [
        "11",
        "[]",
    ]


def test_both_frameworks_are_of_one_cuda() -> None:
    """And no two packages of NVIDIA's write the same file, as those of two CUDAs do with cuDNN's."""
    tf = _said(
        "import tensorflow as tf; b = tf.sysconfig.get_build_info(); print(b['cuda_version'], b['cudnn_version'])"
    )
    torch = _said("import torch; print(torch.version.cuda, torch.backends.cudnn.version() // 10000)")
    assert [version.split(".")[0] for version in tf] == [version.split(".")[0] for version in torch]
    owners = defaultdict(set)
    for package in metadata.distributions():
        if package.name.startswith("nvidia-"):
            for file in package.files or ():
                if ".so" in file.name:
                    owners[str(file)].add(package.name)
    assert owners
    assert {file: names for file, names in owners.items() if len(names) > 1} == {}


def _said(code: str) -> list[str]:
    """The words that a process of its own prints: the frameworks do not always go together in one."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_seam_writes_the_device_into_the_classifier(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    done = run_module(
        project,
        *("pipeline.train", "framework=pytorch", "train.device=cpu", "train.epochs=1", "seeds=[0]"),
        *("data.max_train=200", "evaluate.plots=false", "hydra.run.dir=outputs/one"),
    )
    assert done.returncode == 0, done.stderr
    saved = json.loads((project / "outputs/one/models/seed_0/classifier.json").read_text())
    assert saved["device"]["type"] == "cpu"
    assert saved["train"]["device"] == "cpu"
    assert saved["train"]["tf32"] is False


def test_a_job_of_a_sweep_that_has_no_such_execution_here_is_refused_before_the_first(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project", store=False)
    chosen = ("framework=pytorch", "train.device=cpu", "train.execution=eager,graph")
    done = run_module(project, "pipeline.train", "-m", *chosen)
    assert done.returncode == 2
    assert "train.execution = 'graph': PyTorch has none on the CPU; allowed: auto, eager, compiled" in done.stderr
    assert not (project / "multirun").exists()
    done = run_module(project, "pipeline.trace", "framework=pytorch", "train.device=cpu", "train.execution=graph")
    assert (done.returncode, done.stdout) == (2, "")
