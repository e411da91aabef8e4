"""What checkpoints take of the disk: bounded, and never at the cost of one that a process is at work on."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from pipeline import checkpoint
from pipeline.checkpoint import FOLDER, held, tidy
from pipeline.config import compose
from pipeline.data.obtain import obtain
from pipeline.entry import select
from pipeline.job import Job
from pipeline.models.classifier import Device
from pipeline.train import SECTIONS

DAY = 86_400.0


def cut_short(root: Path, name: str, *, size: int, age: float) -> Path:
    """A checkpoint that nobody holds, `age` seconds old."""
    folder = root / FOLDER / name
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(bytes(size))
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def test_old_ones_go_then_the_oldest_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_KEEP_BYTES", 250)
    new, recent = (cut_short(tmp_path, name, size=100, age=age) for name, age in (("new", 0), ("recent", 60)))
    beyond, stale = (cut_short(tmp_path, name, size=100, age=age) for name, age in (("beyond", 90), ("old", 15 * DAY)))
    assert tidy(tmp_path) == 200
    assert new.exists()
    assert recent.exists()
    assert not beyond.exists()
    assert not stale.exists()


def test_one_that_a_process_holds_stays(tmp_path: Path) -> None:
    folder = cut_short(tmp_path, "long", size=100, age=15 * DAY)
    with FileLock(folder / "lock"):
        os.utime(folder, (time.time() - 15 * DAY,) * 2)
        assert tidy(tmp_path) == 100
        assert folder.exists()
    os.utime(folder, (time.time() - 15 * DAY,) * 2)
    assert tidy(tmp_path) == 0
    assert not folder.exists()


def test_what_a_kill_left_half_written_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = compose(["framework=pytorch", "data.max_train=300", "data.max_test=60"])
    job = Job(**select(config, SECTIONS), dataset=obtain(config.data, tmp_path), output=tmp_path, sweep={})
    key: Any = SimpleNamespace(device=Device("cpu", "cpu", 1), execution="eager")  # all that is asked of the classifier
    with held(tmp_path, job, key, 0) as first:
        first.slot.write_text("run\n")
        (first.slot.parent / ".tmp123abc").write_bytes(bytes(100))
    with held(tmp_path, job, key, 0) as second:
        assert second.slot == first.slot
        assert not (second.slot.parent / ".tmp123abc").exists()
        assert second.slot.exists()
