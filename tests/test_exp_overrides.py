"""`dvc exp run -S key=value`: DVC composes `params.yaml` by itself, and only the stages that read the key run again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.utils.hydra import compose_and_dump
from project_copy import ROOT, clone_project, run

from pipeline.config.__main__ import sync
from pipeline.config.compose import compose, register, write

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PLUGINS = "pipeline/config/hydra_ext"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the snapshot that `dvc.lock` was made of."""
    register()
    write(compose(), tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_dvc_composes(*overrides: str, project: Path = ROOT) -> None:
    """Write `params.yaml` into the working directory as `dvc exp run -S` does before its first stage."""
    compose_and_dump("params.yaml", str(project / "conf"), None, "config", str(ROOT / PLUGINS), list(overrides))


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def reading(key: str) -> set[str]:
    """The stages that list a section which holds the key, or a part of it."""
    return {
        stage
        for stage, facts in STAGES.items()
        if any(f"{key}.".startswith(f"{section}.") for section in facts.get("params", ()))
    }


def stale(before: Any, after: Any) -> set[str]:
    """The stages of which a section differs: DVC compares the values that `dvc.lock` holds."""
    return {
        stage
        for stage, facts in STAGES.items()
        if any(at(before, section) != at(after, section) for section in facts.get("params", ()))
    }


OTHER = {  # where the other value is not made from the default
    "export.formats": "[onnx]",
    "data.name": "kmnist",
    "data.provider": "tfds",
    "data.mirror": "/somewhere",
    "data.root": "/somewhere",
    "data.options": "{split: letters}",
    "data.classes": "[a,b]",
    "data.size": "[8,8]",
    "data.fit": "pad",
    "data.channels": "3",
    "data.corrupt": "skip",
    "data.max_train": "300",
    "data.max_test": "60",
    "model.name": "mine",
    "model.kernel_initializer": "kaiming_uniform",
    "model.bias_initializer": "fan_in_uniform",
    "model.layers": "[{type: flatten},{type: dense,units: classes}]",
    "train.execution": "eager",
    "train.device": "cpu",
    "train.precision": "float64",
    "train.schedule.final_fraction": "0.1",
    "train.threads": "1",
    "train.memory_mebibytes": "64",
    "train.label_smoothing": "0.1",
    "train.clip_norm": "1.0",
    "tracking.experiment": "mine",
    "search.storage": "sqlite:///study.db",
    "search.fresh_seeds": "[7]",
    "sweep.parallel": "2",
    "sweep.sort": "validation_loss",
    "framework": "tensorflow",
    "seeds": "[0]",
}
TOGETHER = {  # keys that are valid together only
    "data.name": ("data.provider=torchvision",),
    "data.provider": ("data.name=mnist",),
    "data.mirror": ("data.name=mnist", "data.provider=torchvision"),
    "data.root": ("data.name=mine", "data.provider=folder"),
    "data.options": ("data.name=emnist", "data.provider=torchvision"),
}
NAMES = (
    *("train.optimizer.name", "train.schedule.name", "search.sampler.name", "search.pruner.name"),
    "conf_digest",
)  # chosen as a group; stamped
DEFAULTS = compose().model_dump()


@pytest.mark.parametrize("key", [key for key, _ in leaves(DEFAULTS) if key not in NAMES])
def test_a_key_concerns_the_stages_that_read_it_and_no_others(key: str, workspace: Path) -> None:
    default = at(DEFAULTS, key)
    if key in OTHER:
        other = OTHER[key]
    elif isinstance(default, bool):
        other = str(not default).lower()
    else:
        other = str(default / 2 if isinstance(default, float) else default + 1)
    new = "+" if isinstance(default, dict) else ""  # Hydra has no key below an empty mapping
    as_dvc_composes(f"{new}{key}={other}", *TOGETHER.get(key, ()))
    sync()
    after = yaml.safe_load((workspace / "params.yaml").read_text())
    assert at(after, key) != default
    assert stale(DEFAULTS, after) == reading(key)


CHOICES = {
    **{f"model={name}": {"model"} for name in ("lenet5", "resnet8", "seed_tensorflow", "seed_pytorch")},
    **{f"train/optimizer={name}": {"train"} for name in ("adamw", "sgd", "momentum", "nesterov")},
    **{f"train/schedule={name}": {"train"} for name in ("constant", "step")},
    **{f"data={name}": {"data"} for name in ("mnist", "fashion_mnist", "kmnist", "cifar10")},
    "experiment=mnist_lenet5": {"data", "model"},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_concerns_the_stages_that_read_its_sections(choice: str, workspace: Path) -> None:
    as_dvc_composes(choice)
    sync()
    after = yaml.safe_load((workspace / "params.yaml").read_text())
    assert {key for key in after if after[key] != DEFAULTS[key]} >= CHOICES[choice]
    assert stale(DEFAULTS, after) == {s for key in after if after[key] != DEFAULTS[key] for s in reading(key)}


def test_no_override_gives_the_snapshot_of_conf(workspace: Path) -> None:
    before = (workspace / "params.yaml").read_bytes()
    as_dvc_composes()
    assert (workspace / "params.yaml").read_bytes() != before
    assert "kept" in sync()
    assert (workspace / "params.yaml").read_bytes() == before


def test_dvc_itself_finds_the_stages_stale_that_read_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = clone_project(tmp_path / "project", store=False)
    done = run(project, "python", "-m", "pipeline.config")
    assert done.returncode == 0, done.stderr
    _pretend_outputs(project)
    done = run(project, "dvc", "commit", "-f", "-q")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(project)
    monkeypatch.setattr("pipeline.config.compose.CONF", project / "conf")
    monkeypatch.setenv("DVC_EXP_NAME", "lame-gram")
    for override, concerned in {
        "compare.resamples=400": {"compare"},
        "parity.gradients=1e-9": {"parity"},
        "evaluate.plots=false": {"evaluate", "compare"},
        "trace.steps=7": {"trace"},
        "compare.speed.rounds=4": {"speed", "compare"},
        "data.corrupt=skip": {"download", "prepare"},
    }.items():
        as_dvc_composes(override, project=project)
        assert "kept" in sync()
        status = Repo().status()
        assert {stage.split("@")[0] for stage in status if stage != "config"} == concerned


def _pretend_outputs(project: Path) -> None:
    """Make an output of every stage, so that `dvc commit` takes all for up to date."""
    for facts in STAGES.values():
        for out in (*facts["outs"], *facts.get("metrics", ())):
            name = out if isinstance(out, str) else next(iter(out))
            for framework in ("tensorflow", "pytorch"):
                path = project / name.replace("${item.framework}", framework)
                if path.name != "params.yaml":
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text("{}")
