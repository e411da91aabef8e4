"""`python -m pipeline.config --sync`, the stage `config`: when `params.yaml` is kept, recomposed, or not touched."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from project_copy import ROOT, copy_project, run_module

from pipeline.config.compose import compose, load, write


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with a fresh `params.yaml`."""
    copied = copy_project(tmp_path / "project")
    write(compose(), copied / "params.yaml")
    return copied


def sync(project: Path, **environment: str) -> str:
    """Synchronise, which must succeed; what it printed."""
    done = run_module(project, "pipeline.config", "--sync", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_sync_refuses(project: Path, message: str, **environment: str) -> None:
    """Synchronise, which must end with code 2 and one message, and leave everything as it was."""
    params = project / "params.yaml"
    before = params.read_bytes()
    done = run_module(project, "pipeline.config", "--sync", **environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(f"error: (.|\n)*{message}", done.stderr)
    assert params.read_bytes() == before
    assert not (project / "params.part.yaml").exists()


def edit(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
    assert count == 1
    assert changed != text
    path.write_text(changed, encoding="utf-8")


def test_the_copy_runs_its_own_package(project: Path) -> None:
    (project / "pipeline" / "where.py").write_text("from pipeline.config.compose import CONF\n\nprint(CONF)\n")
    assert run_module(project, "pipeline.where").stdout.strip() == str(project / "conf")


def test_a_missing_snapshot_is_composed(project: Path) -> None:
    params = project / "params.yaml"
    composed = params.read_bytes()
    params.unlink()
    assert "missing" in sync(project)
    assert params.read_bytes() == composed


def test_a_fresh_snapshot_is_kept(project: Path) -> None:
    before = (project / "params.yaml").stat()
    assert "kept" in sync(project)
    after = (project / "params.yaml").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_valid_hand_edit_is_kept(project: Path) -> None:
    params = project / "params.yaml"
    edit(params, r"^  epochs: \d+$", "  epochs: 77")
    before = params.read_bytes()
    assert "kept" in sync(project)
    assert params.read_bytes() == before
    assert load(params).train.epochs == 77


@pytest.mark.parametrize("environment", [{}, {"DVC_EXP_NAME": "tidy-newt"}], ids=["repro", "exp run"])
def test_overrides_given_to_the_command_are_kept(project: Path, environment: dict[str, str]) -> None:
    assert run_module(project, "pipeline.config", "train.epochs=2").returncode == 0
    before = (project / "params.yaml").read_bytes()
    assert "kept" in sync(project, **environment)
    assert (project / "params.yaml").read_bytes() == before
    assert load(project / "params.yaml").train.epochs == 2


def test_an_edit_of_conf_reaches_the_snapshot(project: Path) -> None:
    edit(project / "conf" / "train" / "default.yaml", r"^epochs: \d+", "epochs: 88")
    assert "stale" in sync(project)
    assert load(project / "params.yaml").train.epochs == 88
    assert "kept" in sync(project)


def test_a_renamed_file_in_conf_makes_the_snapshot_stale(project: Path) -> None:
    (project / "conf" / "experiment" / "seed_tensorflow.yaml").rename(project / "conf" / "experiment" / "seed_tf.yaml")
    assert "stale" in sync(project)


def test_an_edited_comment_in_conf_changes_the_digest_and_nothing_else(project: Path) -> None:
    before = load(project / "params.yaml").model_dump()
    with (project / "conf" / "train" / "default.yaml").open("a") as file:
        file.write("# a remark\n")
    assert "stale" in sync(project)
    after = load(project / "params.yaml").model_dump()
    assert before.pop("conf_digest") != after.pop("conf_digest")
    assert after == before


def test_an_editor_s_lock_file_in_conf_does_not_matter(project: Path) -> None:
    (project / "conf" / "train" / ".#default.yaml").symlink_to("somebody@host.1234:5678")
    assert "kept" in sync(project)


def test_a_stale_snapshot_stops_an_experiment_whose_overrides_would_be_lost(project: Path) -> None:
    edit(project / "conf" / "train" / "default.yaml", r"^epochs: \d+", "epochs: 88")
    assert_sync_refuses(project, "not composed from this conf/", DVC_EXP_NAME="tidy-newt")


HAND_EDITS = {
    "unknown key": (r"^  epochs: ", "  epohcs: ", r"train\.epohcs = \d+: unknown key; did you mean epochs\?"),
    "wrong type": (r"^  epochs: \d+$", "  epochs: many", r"train\.epochs = 'many': .*valid integer"),
    "no value": (r"^  epochs: \d+$", "  epochs: ???", r"train\.epochs = \?\?\?: a value is required"),
    "not YAML": (r"^train:$", "train: [", r"params\.yaml: cannot be read as YAML"),
}


@pytest.mark.parametrize(("pattern", "replacement", "message"), HAND_EDITS.values(), ids=HAND_EDITS)
def test_a_mistaken_hand_edit_is_refused(project: Path, pattern: str, replacement: str, message: str) -> None:
    edit(project / "params.yaml", pattern, replacement)
    assert_sync_refuses(project, message)


def test_a_snapshot_with_an_interpolation_for_its_digest_is_composed_again(project: Path) -> None:
    params = project / "params.yaml"
    composed = params.read_bytes()
    edit(params, r"^conf_digest: .*$", "conf_digest: ${conf_digest:}")
    sync(project)
    assert params.read_bytes() == composed


BROKEN_CONF = {
    "not YAML": ("train/default.yaml", b"epochs: [1\n", r"train/default\.yaml"),
    "binary": ("train/default.yaml", b"\xff\xfe\0", "decode"),
    "a number": ("train/default.yaml", b"5\n", "int"),
    "empty": ("train/default.yaml", b"", r"train\.epochs: missing"),
    "unknown key": ("train/default.yaml", b"epohcs: 3\n", r"train\.epohcs = 3: unknown key"),
    "no such choice": ("config.yaml", b"defaults:\n  - data: nonsense\n", "data = 'nonsense': unknown"),
    "no such resolver": ("config.yaml", b"framework: ${nonsense:}\n", "nonsense"),
    "not YAML at the top": ("config.yaml", b"defaults: [", r"config\.yaml"),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN_CONF.values(), ids=BROKEN_CONF)
def test_a_broken_conf_is_refused(project: Path, name: str, content: bytes, message: str) -> None:
    (project / "conf" / name).write_bytes(content)
    assert_sync_refuses(project, message)


def test_the_committed_snapshot_is_that_of_the_committed_conf() -> None:
    """`dvc exp run` refuses a stale one; what a developer has changed and not committed is their own."""
    asked = ["git", "status", "--porcelain", "conf", "params.yaml"]
    if not subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout:
        assert yaml.safe_load((ROOT / "params.yaml").read_text()) == compose().model_dump()
