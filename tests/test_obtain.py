"""Prepared data for a run outside the pipeline: the pipeline's own where it fits, else a cache that is made once."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from project_copy import ROOT

from pipeline.config.compose import compose
from pipeline.config.schema.data import DataConfig
from pipeline.core import fingerprint
from pipeline.data.cache import make, obtain
from pipeline.data.dataset import SPLITS, Dataset

ARRAYS = [f"{split}/{part}.npy" for split in SPLITS for part in ("images", "labels")]
SMALL = ("max_train=500", "max_test=100")


def sample(*overrides: str) -> DataConfig:
    return compose(["data=mnist_sample", *(f"data.{override}" for override in overrides)]).data


def made(folder: Path, *overrides: str) -> Dataset:
    folder.parent.mkdir()
    make(sample(*overrides), folder)
    return Dataset.open(folder)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in [*ARRAYS, "dataset.json"]
    }


def test_what_the_pipeline_prepared_is_used_where_it_fits(tmp_path: Path) -> None:
    own = made(tmp_path / "data" / "prepared", *SMALL)
    assert obtain(sample(*SMALL), tmp_path).folder == own.folder
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"cache", "prepared"}
    assert {path.name for path in (tmp_path / "data/cache").iterdir()} == {"prepared.json"}


def test_what_the_pipeline_prepared_otherwise_is_left_alone(tmp_path: Path) -> None:
    own = made(tmp_path / "data" / "prepared", *SMALL)
    before = stamps(own.folder)
    other = obtain(sample(*SMALL, "split_seed=1"), tmp_path)
    assert other.folder.parent == tmp_path / "data" / "cache"
    assert other.facts.source["split_seed"] == 1
    assert stamps(own.folder) == before


def test_a_second_call_finds_what_the_first_made(tmp_path: Path) -> None:
    first = obtain(sample(*SMALL), tmp_path)
    before = stamps(first.folder)
    assert obtain(sample(*SMALL), tmp_path) == first
    assert stamps(first.folder) == before
    assert obtain(sample(*SMALL, "split_seed=1"), tmp_path).folder != first.folder


def test_what_other_code_has_prepared_is_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the pipeline did it, or a run outside of it; and no comment counts."""
    own = made(tmp_path / "data" / "prepared", *SMALL)
    monkeypatch.setattr(fingerprint, "of_code", lambda *_, **__: "another")
    other = obtain(sample(*SMALL), tmp_path)
    assert other.folder.parent == tmp_path / "data" / "cache"
    assert other.fingerprint == own.fingerprint
    before = stamps(other.folder)
    assert stamps(obtain(sample(*SMALL), tmp_path).folder) == before
    monkeypatch.undo()
    (tmp_path / "data/cache/prepared.json").unlink()  # as after `dvc pull`
    assert stamps(obtain(sample(*SMALL), tmp_path).folder) != before


def test_an_interrupted_build_is_built_again(tmp_path: Path) -> None:
    folder = obtain(sample(*SMALL), tmp_path).folder
    fingerprint = Dataset.open(folder).fingerprint
    (folder / "dataset.json").unlink()
    (folder.with_name(folder.name + ".building") / "raw").mkdir(parents=True)
    again = obtain(sample(*SMALL), tmp_path)
    assert again.fingerprint == fingerprint
    assert len(again.split("test").labels) == 100
    assert not folder.with_name(folder.name + ".building").exists()


OBTAIN = """
import sys, time
from pathlib import Path
from pipeline.config.schema.data import DataConfig
from pipeline.data.cache import obtain

root = Path(sys.argv[1])
data = DataConfig.model_validate_json(sys.argv[2])
(root / f"ready{sys.argv[3]}").touch()
while not (root / "go").exists():
    time.sleep(0.001)
dataset = obtain(data, root)
print("fingerprint", dataset.fingerprint, len(dataset.split("test").labels))
"""


def test_four_processes_at_once_build_once_and_see_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OBTAIN, str(tmp_path), sample(*SMALL).model_dump_json()]
    processes = [
        subprocess.Popen([*command, str(number)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    while len(list(tmp_path.glob("ready*"))) < 4 and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    lines = [line for output, _ in outputs for line in output.splitlines()]
    found = {line for line in lines if line.startswith("fingerprint")}
    assert found == {f"fingerprint {obtain(sample(*SMALL), tmp_path).fingerprint} 100"}
    assert sum(line.startswith("prepare:") for line in lines) == 1
