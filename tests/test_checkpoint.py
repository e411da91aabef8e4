"""What checkpoints take of the disk: bounded, and never at the cost of one that a process is at work on."""

import hashlib
import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from descriptors import opened
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.numpy import save_file

from pipeline.config.compose import compose
from pipeline.core.errors import BusyError
from pipeline.core.fingerprint import of_code, versions
from pipeline.core.machine import steering_variables
from pipeline.data.cache import obtain
from pipeline.models.backend import Device, EpochResult, State
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import FOLDER, Checkpoint, Progress, key_of, locked, tidy
from pipeline.training.results import HistoryRow
from pipeline.training.spec import RunSpec, SweepMembership

DAY = 86_400.0


def cut_short(root: Path, name: str, *, size: int, age: float) -> Path:
    """A checkpoint that nobody holds, `age` seconds old."""
    folder = root / FOLDER / name
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(bytes(size))
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def test_old_ones_go_then_the_oldest_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoints.KEEP_BYTES == 4 * 2**30
    monkeypatch.setattr(checkpoints, "KEEP_BYTES", 200)
    new, recent = (cut_short(tmp_path, name, size=100, age=age) for name, age in (("a", 0), ("b", 60)))
    beyond, stale = (cut_short(tmp_path, name, size=100, age=age) for name, age in (("c", 90), ("d", 14.5 * DAY)))
    assert tidy(tmp_path) == 200
    assert new.exists()
    assert recent.exists()
    assert not beyond.exists()
    assert not stale.exists()
    assert opened(tmp_path) == []


def test_one_that_a_process_holds_stays(tmp_path: Path) -> None:
    folder = cut_short(tmp_path, "long", size=100, age=15 * DAY)
    with FileLock(folder / "lock"):
        os.utime(folder, (time.time() - 15 * DAY,) * 2)
        began = time.monotonic()
        assert tidy(tmp_path) == 100
        assert time.monotonic() - began < 0.5
        assert folder.exists()
    os.utime(folder, (time.time() - 15 * DAY,) * 2)
    assert tidy(tmp_path) == 0
    assert not folder.exists()


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    monkeypatch.chdir(tmp_path)
    return spec_of(tmp_path)


def spec_of(root: Path, *overrides: str, sweep: SweepMembership | None = None) -> RunSpec:
    config = compose(["framework=pytorch", "data.max_train=300", "data.max_test=60", *overrides])
    return RunSpec.of(config, dataset=obtain(config.data, root), output=root, sweep=sweep)


def on(device: Device, execution: str = "eager") -> Any:
    """All that is asked of a classifier."""
    return SimpleNamespace(device=device, execution=execution)


CPU = on(Device("cpu", "cpu", 1))


def test_what_a_kill_left_half_written_goes(spec: RunSpec, tmp_path: Path) -> None:
    with locked(tmp_path, spec, CPU, 0) as first:
        first.run_link.write_text("run\n")
        (first.run_link.parent / ".tmp123abc").write_bytes(bytes(100))
    with locked(tmp_path, spec, CPU, 0) as second:
        (second.run_link.parent / "holder.json").unlink()  # by hand
        assert second.run_link == first.run_link
        assert not (second.run_link.parent / ".tmp123abc").exists()
        assert second.run_link.exists()


def test_one_process_holds_it_and_is_named(spec: RunSpec, tmp_path: Path) -> None:
    began = time.time()
    with locked(tmp_path, spec, CPU, 0) as checkpoint:
        folder = checkpoint.run_link.parent
        assert folder.parent == tmp_path / "checkpoints"
        holder = json.loads((folder / "holder.json").read_text())
        assert (holder["pid"], holder["host"]) == (os.getpid(), os.uname().nodename)
        assert began <= holder["since"] <= time.time()
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        told = (
            f"pytorch: the same is being trained by process {os.getpid()} on {os.uname().nodename} since {since} into "
        )
        with (
            pytest.raises(BusyError, match=f"^{re.escape(told)}"),
            locked(tmp_path, spec, CPU, 0),
        ):
            pass
        assert time.time() - began < 0.9
        with pytest.raises(Timeout), FileLock(folder / "lock", timeout=0):  # by whose name `tidy` asks for it
            pass
        with locked(tmp_path, spec, CPU, 1), locked(tmp_path, spec, CPU, None):  # other seeds, and all of them
            pass
    with locked(tmp_path, spec, CPU, 0):
        pass


def test_what_there_is_nothing_to_go_on_with_leaves_no_folder(spec: RunSpec, tmp_path: Path) -> None:
    def folder_after(*names: str) -> Path:
        with locked(tmp_path, spec, CPU, 0) as checkpoint:
            for name in names:
                (checkpoint.run_link.parent / name).touch()
        return checkpoint.run_link.parent

    assert not folder_after().exists()
    assert not folder_after("completed").exists()
    for name in ("run", "state.safetensors"):
        folder = folder_after(name)
        assert opened(folder) == []
        assert not (folder / "holder.json").exists()
        assert (folder / name).exists()
        (folder / name).unlink()


def test_whatever_decides_the_bits_is_in_the_key_and_nothing_else(spec: RunSpec, tmp_path: Path) -> None:
    def changed(*overrides: str) -> RunSpec:
        return spec_of(tmp_path, *overrides)

    gpu, compiled, threads = on(Device("gpu", "H", 1)), on(CPU.device, "compiled"), on(Device("cpu", "cpu", 2))
    keys = [
        key_of(spec, CPU, 0),
        key_of(spec, CPU, 1),
        key_of(spec, CPU, None),
        key_of(changed("seeds=[0]"), CPU, None),
        *(key_of(changed(one), CPU, 0) for one in ("train.epochs=7", "model=lenet5", "data.split_seed=1")),
        *(key_of(spec, other, 0) for other in (gpu, compiled, threads)),
        key_of(spec_of(tmp_path, sweep=SweepMembership("s", "p", 0, "", "k")), CPU, 0),
        key_of(changed("framework=tensorflow"), CPU, 0),
    ]
    assert len(set(keys)) == len(keys)
    assert [key.partition("-")[0] for key in keys] == ["pytorch"] * 11 + ["tensorflow"]
    same = ("train.memory_mebibytes=3", "train.checkpoint_minutes=1", "seeds=[0]", "evaluate.plots=false")
    assert {key_of(changed(one), CPU, 0) for one in same} == {keys[0]}
    digests = [of_code("train", framework="pytorch"), of_code("train", framework="tensorflow")]
    assert len(set(digests)) == 2


def test_a_checkpoint_of_yesterday_is_found_today(spec: RunSpec) -> None:
    """The key is that of these facts."""
    facts: dict[str, Any] = {
        **{"spec": spec.defining(), "seed": 3, "seeds": None, "sweep": None},
        **{"code": of_code("train", framework="pytorch"), "versions": versions("pytorch")},
        **{"variables": steering_variables("pytorch")},
        **{"device": {"type": "cpu", "name": "cpu", "threads": 1}, "execution": "eager"},
    }
    for seed, seeds in ((3, None), (None, [0, 1, 2])):
        text = json.dumps(facts | {"seed": seed, "seeds": seeds}, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        assert key_of(spec, CPU, seed) == f"pytorch-{digest}"


STATE = State({"w": np.arange(6, dtype=np.float32)}, {"momentum": {"w": np.ones(6)}, "empty": {}}, 7)


def progress() -> Progress:
    facts: dict[str, Any] = {
        "history": [HistoryRow(0, 1, "train", 0.5, 0.25)],
        "model": "m",
        "done": True,
        "seconds": 1.5,
    }
    loss, correct = [np.array([1.0, 2.0]), np.array([3.0])], [np.array([1, 2]), np.array([4])]
    return Progress(epoch=2, step=3, loss=loss, correct=correct, **facts)


def test_all_that_training_continues_from_is_read_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    checkpoint.save(STATE, progress())
    checkpoint.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    found = checkpoint.load()
    assert found is not None
    state, reached = found
    assert state.step == 7
    assert state.weights.keys() == {"w"}
    assert state.weights["w"].dtype == np.float32
    assert state.weights["w"].tolist() == list(range(6))
    assert state.slots.keys() == {"momentum", "empty"}
    assert state.slots["momentum"]["w"].tolist() == [1.0] * 6
    assert state.slots["empty"] == {}
    assert [part.tolist() for part in reached.loss] == [[1.0, 2.0, 3.0]]
    assert [part.tolist() for part in reached.correct] == [[1, 2, 4]]
    wanted = vars(progress()) | {"loss": None, "correct": None}
    assert vars(reached) | {"loss": None, "correct": None} == wanted
    checkpoint.save(STATE, Progress(), wait=True)  # before the first step
    found = checkpoint.load()
    assert found is not None
    assert [part.tolist() for part in (*found[1].loss, *found[1].correct)] == [[], []]
    assert found[1].correct[0].dtype == np.int64
    checkpoint.discard()
    checkpoint.discard()
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_all_is_noted(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert not checkpoint.completed
    checkpoint.mark_complete()
    assert checkpoint.completed
    assert (tmp_path / "completed").exists()
    assert Checkpoint(tmp_path).completed


def test_training_waits_for_a_checkpoint_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> None:
        time.sleep(0.3)
        save_file(*arguments)

    monkeypatch.setattr(checkpoints, "save_file", slow)
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(STATE, progress())
    checkpoint.discard()  # also one that is being written
    time.sleep(0.4)
    assert list(tmp_path.iterdir()) == []
    checkpoint = Checkpoint(tmp_path)
    began = checkpoint.written
    checkpoint.save(STATE, progress())
    assert checkpoint.seconds < 0.1
    assert not (tmp_path / "state.safetensors").exists()
    assert began < checkpoint.written <= time.monotonic()
    checkpoint.save(STATE, progress())  # the one before comes first
    assert (tmp_path / "state.safetensors").exists()
    assert 0.2 < checkpoint.seconds < 0.6
    checkpoint.save(STATE, progress(), wait=True)
    assert 0.8 < checkpoint.seconds < 1.5


def test_where_none_can_be_written_training_goes_on_with_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(STATE, Progress(epoch=5), wait=True)
    for half in (True, False):

        def full(_: Any, path: Path, *__: Any, half: bool = half) -> None:
            if half:
                path.write_bytes(b"half")
            raise OSError("no room")

        with monkeypatch.context() as patched:
            patched.setattr(checkpoints, "save_file", full)
            checkpoint.save(STATE, Progress(epoch=6), wait=True)
        assert capsys.readouterr().err == f"{tmp_path}: no checkpoint: no room; training goes on\n"
        assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    found = checkpoint.load()
    assert found is not None
    assert found[1].epoch == 5


def test_a_crash_leaves_the_old_one_or_the_new_one_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synchronised.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    checkpoint, before = Checkpoint(tmp_path), opened(tmp_path)
    checkpoint.save(STATE, progress(), wait=True)
    assert synchronised == [str(tmp_path / "state.part.safetensors"), str(tmp_path)]
    assert opened(tmp_path) == before


def test_other_arrays_under_the_same_digest_are_not_continued_from(tmp_path: Path) -> None:
    checkpoint, path = Checkpoint(tmp_path), tmp_path / "state.safetensors"
    checkpoint.save(STATE, progress(), wait=True)
    with safe_open(path, "numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights = arrays.pop("weights/w")
    told = f"^{re.escape(str(path))}: not continued from: its content is not what was written$"
    for other in ({"weights/v": weights}, {"weights/w": weights.view(np.int32)}, {"weights/w": weights.reshape(2, 3)}):
        save_file(arrays | other, path, metadata)
        with pytest.warns(UserWarning, match=told) as warned:
            assert checkpoint.load() is None
        assert warned[0].filename == __file__


def test_steps_add_up_within_an_epoch() -> None:
    assert Progress() == Progress(1, 0, [], [], 0.0, [], None, False)
    reached = Progress(epoch=4)
    for count, seconds, waited in ((2, 1.0, 0.5), (3, 2.0, 0.25)):
        reached.add(EpochResult(np.full(count, 0.5), np.full(count, 9), seconds), waited)
    assert (reached.epoch, reached.step, reached.seconds) == (4, 5, 3.75)
    assert np.concatenate(reached.loss).tolist() == [0.5] * 5
    assert np.concatenate(reached.correct).tolist() == [9] * 5
    reached.begin_next_epoch()
    assert (reached.epoch, reached.step, reached.seconds, reached.loss, reached.correct) == (5, 0, 0.0, [], [])
