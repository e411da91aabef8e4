"""What a move of the repository leaves behind, beside the store: see test_relocation."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.diagnosis import location

ROOT = Path(__file__).parents[1]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def test_a_worktree_is_told_whose_store_it_has(tmp_path: Path) -> None:
    main, tree = tmp_path / "main", tmp_path / "tree"
    main.mkdir()
    git(main, "init", "-q")
    git(main, "commit", "-q", "--allow-empty", "-m", "start")
    git(main, "worktree", "add", "-q", str(tree))
    assert list(location.check(main)) == [("ok", str(main))]
    ((mark, said),) = location.check(tree)
    assert (mark, f"sqlite:///{main}/mlflow.db" in said) == ("ok", True)
    moved = main.rename(tmp_path / "moved")
    ((mark, said),) = location.check(tree)
    assert (mark, f"git worktree repair {tree}" in said) == ("warn", True)
    git(moved, "worktree", "repair", str(tree))
    assert next(iter(location.check(tree)))[0] == "ok"


@pytest.mark.parametrize("exists", [True, False], ids=["copied", "moved"])
def test_an_environment_of_another_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    before, now = tmp_path / "before a", tmp_path / "now"
    packages = now / ".venv/lib"
    info = packages / "experiment_tracking_pipeline-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: experiment-tracking-pipeline\nVersion: 0.1.0\n")
    (info / "direct_url.json").write_text(json.dumps({"url": before.as_uri(), "dir_info": {"editable": True}}))
    if exists:
        before.mkdir()
    monkeypatch.setattr(sys, "prefix", str(now / ".venv"))
    monkeypatch.setattr(sys, "path", [str(packages), *sys.path])
    ((mark, said),) = location.check(now)
    assert mark == "warn"
    assert f"was set up in {before}" in said
    assert ("takes the code of" if exists else "does not start") in said
    (info / "direct_url.json").write_text(json.dumps({"url": now.as_uri(), "dir_info": {"editable": True}}))
    assert list(location.check(now)) == [("ok", str(now))]


def test_make_sets_up_a_moved_environment_anew(tmp_path: Path) -> None:
    """What `make` would do: dry, as it takes minutes."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    stamp = tmp_path / ".venv/.installed"
    stamp.parent.mkdir()

    def planned() -> str:
        return subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True).stdout

    stamp.write_text(f"{tmp_path}\n")
    assert "rm -rf" not in planned()
    stamp.write_text("/was/somewhere else\n")
    assert "--editable ." in planned()
    assert 'test -z "/was/somewhere else"' in planned()
