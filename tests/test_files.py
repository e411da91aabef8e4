"""Files and folders appear whole, and no file is written in place: its bytes may be those of DVC's cache."""

import ast
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from project_copy import ROOT, run, run_module

from pipeline.core.files import atomic_directory, atomic_file, write_bytes, write_json, write_text

WRITERS = {
    *("write_text", "write_bytes", "touch", "save", "savez", "savez_compressed", "savetxt", "savefig", "save_file"),
    *("tofile", "copyfile", "copy", "copy2", "copytree", "dump", "to_csv", "open_memmap", "truncate", "link"),
    *("symlink_to", "hardlink_to"),
}
"""Methods and functions that write a file, whatever they belong to; `open` and `memmap` do with some modes only."""
ALLOWED = {
    "data/build.py": "into a folder that `atomic_directory`, or the cache of data, has just made",
    "data/decoding.py": "into a folder that `atomic_directory`, or the cache of data, has just made",
    "data/downloader.py": "`<name>.part`, which then replaces; a link or a copy where nothing is any more",
    "data/providers/bundled_provider.py": "into a folder that `atomic_directory`, or the cache of data, has just made",
    "tracking/journal.py": "the journal's own events, in a folder that is no output; `position.part`, which replaces",
    "tracking/lines.py": "cuts off what was not written whole, in the journal's own file",
    "tracking/mlflow_compat.py": "MLflow's own description of a model, in the copy that the journal has just made",
    "sweeps/processes.py": "appends to the log of a job, in a folder that is no output",
    "sweeps/resend.py": "into a temporary folder",
    "sweeps/workers/worker.py": "a stream on a descriptor",
    "core/quiet.py": "a stream on a descriptor",
    "training/run_logging.py": "into a temporary folder",
    "exports/export.py": "into a temporary folder, or the one that `atomic_directory` has just made",
    "exports/process.py": "into a temporary folder",
    "exports/promotion.py": "into a temporary folder",
    "exports/pytorch_files.py": "into the folder that `atomic_directory` has just made",
    "exports/tensorflow_files.py": "into the folder that `atomic_directory` has just made",
    "reproduction/dvc_cache.py": "into a temporary folder",
    "reproduction/restored_data.py": "into a temporary folder",
    "reproduction/workspace.py": "into a temporary folder",
    "tracking/registry.py": "into a temporary folder",
    "sweeps/workers/__init__.py": "the log of the workers, in a temporary folder",
}
OTHER_MEANING = {"ast.dump", "backend.save", "checkpoint.save", "flavours.save", "safetensors.save", "tracker.link"}
"""Calls with the names of `WRITERS` that write nothing, or by functions of ours that are judged themselves."""


def _writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("open", "memmap", "fdopen", "load"):
        words = [word.value for word in call.keywords if word.arg in ("mode", "mmap_mode")]
        modes = [value.value for value in (*call.args, *words) if isinstance(value, ast.Constant)]
        return any(isinstance(mode, str) and len(mode) < 4 and set(mode) & set("wax+") for mode in modes)
    if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func).removeprefix("self.") in OTHER_MEANING:
        return False
    return name in WRITERS and [ast.unparse(argument) for argument in call.args[:1]] != ["buffer"]  # into memory


def _unguarded(node: ast.AST, guarded: bool = False) -> list[ast.Call]:
    """The calls that write and are not within `with atomic_file(...)`."""
    found = []
    if isinstance(node, ast.With):
        opened = [ast.unparse(item.context_expr) for item in node.items]
        guarded |= any(text.startswith("atomic_file(") for text in opened)
    if isinstance(node, ast.Call) and not guarded and _writes(node):
        found.append(node)
    for child in ast.iter_child_nodes(node):
        found += _unguarded(child, guarded)
    return found


def test_no_file_is_written_in_place() -> None:
    used = set()
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        name = str(path.relative_to(ROOT / "pipeline"))
        for call in _unguarded(ast.parse(path.read_text(encoding="utf-8"))):
            assert name in ALLOWED, f"{path}:{call.lineno}: {ast.unparse(call)}: use `files.atomic_file`"
            used.add(name)
    assert used == set(ALLOWED)


def test_what_the_test_above_looks_for_is_found() -> None:
    """Each of these would write through a link."""
    for text in (
        "np.savez(output / 'a.npz', a=1)", "figure.savefig(path)", "path.open('w')", "open(path, 'r+')", "path.touch()",
        "open(path, mode='ab')", "np.memmap(path, np.uint8, 'w+')", "np.load(path, mmap_mode='r+')",
        "shutil.copy(a, path)", "with other(path) as part:\n    part.write_bytes(b'')", "model.save(path)",
    ):  # fmt: skip
        assert _unguarded(ast.parse(text)), text
    for text in ("path.open('rb')", "np.load(path)", "with atomic_file(path) as part:\n    np.save(part, a)"):
        assert not _unguarded(ast.parse(text)), text


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_what_a_link_leads_to_stays_as_it_is(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    kept, path = tmp_path / "cache", tmp_path / "results/out.npz"
    kept.write_bytes(b"kept")
    kept.chmod(0o444)
    path.parent.mkdir()
    writers: list[Callable[[Path], None]] = [
        *(lambda path: write_text(path, "new"), lambda path: write_bytes(path, b"new")),
        *(lambda path: write_json(path, 1), _write_array),
    ]
    for write in writers:
        path.unlink(missing_ok=True)
        link(path, kept)
        write(path)
        assert kept.read_bytes() == b"kept"
        assert not path.is_symlink()
        assert path.read_bytes() != b"kept"
        assert os.access(path, os.W_OK)
        assert [each.name for each in path.parent.iterdir()] == ["out.npz"]


def test_a_file_that_cannot_be_written_to_the_end_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    path.write_bytes(b"old")
    (tmp_path / "out.part.npz").symlink_to(path)  # by whatever

    def fail() -> None:
        with atomic_file(path) as part:
            part.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["out.npz"]


def test_a_folder_that_is_a_link_stays_one(tmp_path: Path) -> None:
    """A person has put it on another disk."""
    large, folder = tmp_path / "disk/large", tmp_path / "prepared"
    large.mkdir(parents=True)
    (large / "old").touch()
    folder.symlink_to(large)
    with atomic_directory(folder) as building:
        (building / "new").touch()
    assert folder.is_symlink()
    assert [path.name for path in large.iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["large"]


def _write_array(path: Path) -> None:
    with atomic_file(path, durable=True) as part:
        np.savez(part, a=np.arange(3))


ONE = "framework=pytorch"
BY_HAND: tuple[tuple[dict[str, Any], tuple[tuple[str, ...], ...]], ...] = (  # other settings, and what reads them
    (
        {"evaluate": {"calibration_bins": 7}, "parity": {"gradients": 1e-9}, "compare": {"resamples": 300}},
        (("parity",), ("evaluate", ONE), ("speed",), ("compare",)),
    ),
    (
        {"train": {"epochs": 1}, "data": {"split_seed": 1}},
        (("download",), ("prepare",), ("describe",), ("train", ONE)),
    ),
)


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_commands_run_by_hand_leave_dvc_s_cache_as_it_is(finished: tuple[Path, str, str], kind: str) -> None:
    """`cache.type`: every output is a read-only link into the cache."""
    project = finished[0]
    for command in (("config", "cache.type", kind), ("checkout", "--relink", "--force")):
        done = run(project, "dvc", *command)
        assert done.returncode == 0, done.stderr[-3000:]
    model = project / "results/pytorch/models/seed_0/weights.safetensors"
    assert model.is_symlink() if kind == "symlink" else model.stat().st_nlink > 1
    before = (project / "params.yaml").read_text()
    params = yaml.safe_load(before)
    for settings, commands in BY_HAND:
        for section, values in settings.items():
            params[section] |= values
        write_text(project / "params.yaml", yaml.safe_dump(params))
        for name, *arguments in commands:
            done = run_module(project, f"pipeline.{name}", "--params", "params.yaml", *arguments)
            assert done.returncode == 0, done.stderr[-3000:]
    write_text(project / "params.yaml", before)  # for the next kind of link
    assert model.stat().st_nlink == 1
    assert not model.is_symlink()
    damaged = [
        path
        for path in (project / ".dvc/cache/files/md5").rglob("*")
        if path.is_file()
        and hashlib.md5(path.read_bytes()).hexdigest() != f"{path.parent.name}{path.name}".removesuffix(".dir")
    ]
    assert damaged == []
