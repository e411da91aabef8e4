"""Nothing that comes from outside becomes code: no pickle, no shell, no path out of its folder, no open port."""

import ast
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from project_copy import ROOT
from safetensors.numpy import load_file, save_file

from pipeline.core import frameworks
from pipeline.models.backend import State
from pipeline.tracking import store
from pipeline.training.checkpoint import Checkpoint, Progress

SOURCES = sorted((ROOT / "pipeline").rglob("*.py"))
CODE_FROM_DATA = {
    "eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load",
    "torch.load", "joblib.load", "subprocess.getoutput", "cloudpickle.load", "keras.models.load_model",
}  # fmt: skip


def test_no_module_runs_what_it_reads() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in CODE_FROM_DATA, f"{path}:{node.lineno}"
                given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                assert given.get("shell", "False") == "False", f"{path}:{node.lineno}"
                assert given.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
            if isinstance(node, ast.Constant):
                assert node.value not in ("0.0.0.0", "::"), f"{path}:{node.lineno}"


def test_no_value_of_the_configuration_is_in_a_command_of_dvc() -> None:
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert document["vars"] == [{"frameworks": list(frameworks.names())}]  # written there, and read from nowhere
    used = set()
    for name, stage in document["stages"].items():
        found = set(re.findall(r"\$\{([^}]*)\}", yaml.safe_dump(stage)))
        assert found <= {"item.framework", "frameworks"}, name
        assert stage.get("matrix", {"framework": "${frameworks}"}) == {"framework": "${frameworks}"}, name
        used |= found
    assert used == {"item.framework", "frameworks"}


def test_mlflow_is_told_to_load_no_pickle() -> None:
    assert store  # importing it sets the variable, unless the user has
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def _exchange(path: Path) -> None:
    """A well-formed file that somebody else made."""
    content = load_file(path)
    name = next(iter(content))
    save_file({**content, name: content[name] + 1}, path)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-3] + b"abc"),
    "empty": lambda path: path.write_bytes(b""),
    "exchanged": _exchange,
    "pickled": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR."),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_named_and_not_continued_from(damage: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    state = State({"w": np.arange(1000, dtype=np.float32)}, {"momentum": {"w": np.ones(1000, np.float32)}}, 7)
    progress = Progress(epoch=2, step=3, loss=[np.array([1.0, 2.0])], correct=[np.array([1, 2])])
    checkpoint.save(state, progress, wait=True)
    found = checkpoint.load()
    assert found is not None
    assert found[0].weights["w"].tobytes() == state.weights["w"].tobytes()
    assert found[0].slots["momentum"]["w"].tobytes() == state.slots["momentum"]["w"].tobytes()
    assert (found[0].step, found[1].epoch, found[1].step) == (7, 2, 3)
    assert found[1].loss[0].tolist() == [1.0, 2.0]
    path = tmp_path / "state.safetensors"
    damage(path)
    with pytest.warns(UserWarning, match=f"{re.escape(str(path))}: not continued from: "):
        assert checkpoint.load() is None
    assert not (tmp_path / "pwned").exists()
