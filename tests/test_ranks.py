"""One training in several processes: it computes what one process computes, and ends as one does."""

import contextlib
import functools
import itertools
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy_backend import NUMPY
from project_copy import TINY, clean_environment, clone_project, edit, run_module, start, until
from safetensors.numpy import load_file
from tracing import Tracer, noise

from pipeline.config.compose import compose
from pipeline.core import frameworks
from pipeline.core.errors import RankLostError, UserError
from pipeline.data.dataset import Dataset
from pipeline.data.plan import EpochPlan
from pipeline.equality.levels import Level, compare_traces
from pipeline.equality.trace import Trace
from pipeline.evaluation.speed import measure
from pipeline.models.share import Share, require_shares
from pipeline.ranks import classifier, connection, follower, joining
from pipeline.ranks.connection import Message
from pipeline.ranks.joining import Member
from pipeline.ranks.launch import Badge, Launch, first_host, found
from pipeline.ranks.watch import Watch

FRAMEWORKS = ("tensorflow", "pytorch")
WORLD = 2
NETWORK = {
    "name": "everything",
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "fan_in_uniform",
    "normalise": True,
    "layers": [
        {"type": "conv", "filters": 3, "kernel_size": 3, "padding": "same", "bias": False},
        {"type": "batch_norm", "activation": "silu"},
        {"type": "max_pool", "size": 2},
        {"type": "residual", "layers": [{"type": "conv", "filters": 3, "kernel_size": 3, "padding": "same"}]},
        {"type": "dropout", "rate": 0.3},
        {"type": "flatten"},
        {"type": "dense", "units": 6, "bias": False},
        {"type": "batch_norm", "activation": "relu"},
        {"type": "dropout", "rate": 0.2},
        {"type": "dense", "units": "classes"},
    ],
}
PLAIN = {**NETWORK, "name": "plain", "layers": [{"type": "flatten"}, {"type": "dense", "units": "classes"}]}
NETWORKS = {"everything": NETWORK, "plain": PLAIN}
SETTINGS = [
    "train.threads=1",
    "trace.batch_size=15",  # 7 and 8
    "train.label_smoothing=0.1",
    "train.clip_norm=0.5",
    "train.augment.flip=true",
    "train.augment.pad_and_crop=2",
]
TOLD = ("launcher", "rank", "world", "host", "port", "on_this_machine", "local")
TRAIN = ("pipeline.train", "train.epochs=4", "seeds=[0]", "train.batch_size=33", "evaluate.plots=false", *TINY)


@given(st.integers(1, 9), st.integers(0, 200))
def test_every_example_has_one_rank(world: int, more: int) -> None:
    size = world + more
    rows = [Share(rank, world, ()).rows(size) for rank in range(world)]
    assert [i for part in rows for i in range(size)[part]] == list(range(size))
    assert {part.stop - part.start for part in rows} <= {size // world, -(-size // world)}


def test_a_batch_smaller_than_the_ranks_is_refused() -> None:
    require_shares(3, [16, 3])
    with pytest.raises(
        UserError,
        match=r"a batch of 2 examples .* allowed: 1 to 2, or a train.batch_size that leaves no batch of fewer than 3",
    ):
        require_shares(3, [16, 2])
    with pytest.raises(ValueError, match="2 examples for 3 ranks"):
        Share(0, 3, ()).rows(2)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of the trace of a framework in so many ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    data = noise(folder / "data", (7, 6, 3))

    @functools.cache
    def output(framework: str, world: int, kind: str, *more: str) -> Path:
        place = folder / f"{framework} {world} {kind} {len(more)}"
        with Tracer(framework) as tracer:  # a process has one group of ranks for its life
            tracer.ask(data, place, [*SETTINGS, f"train.world={world}", *more], NETWORKS[kind])
            tracer.answer()
        return place

    return output


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """What was traced in float64, of 50 steps."""
    with np.load(folder / "arrays.npz") as file:
        return {name: file[name] for name in file.files if name.startswith("float64/")}


def deviation(one: Path, other: Path) -> float:
    """The largest, of an array's difference in its norm."""
    a, b = arrays(one), arrays(other)
    assert a.keys() == b.keys()
    assert any("weights at the end" in name for name in a)
    least = 1e-6 * max(float(np.linalg.norm(value)) for value in a.values())
    return max(float(np.linalg.norm(a[name] - b[name]) / max(np.linalg.norm(a[name]), least)) for name in a)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_ranks_compute_what_one_does(traced: Callable[..., Path], framework: str) -> None:
    alone, together = traced(framework, 1, "everything"), traced(framework, WORLD, "everything")
    assert deviation(alone, together) <= 1e-10
    one, other = arrays(alone), arrays(together)
    assert any((one[name] != other[name]).any() for name in one)  # sums in another order: it was computed apart


def test_two_ranks_of_one_framework_compute_what_one_and_two_of_the_other_do(traced: Callable[..., Path]) -> None:
    tensorflow, pytorch = (traced(framework, WORLD, "everything") for framework in FRAMEWORKS)
    assert deviation(tensorflow, pytorch) <= 1e-10
    assert deviation(traced("tensorflow", 1, "everything"), pytorch) <= 1e-10


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_trace_of_ranks_needs_no_number_of_threads(tmp_path: Path, framework: str) -> None:
    data = noise(tmp_path / "data", (7, 6, 3))
    with Tracer(framework) as tracer:
        tracer.ask(data, tmp_path / "trace", ["train.world=2", "trace.steps=2"], PLAIN)
        tracer.answer()
    with np.load(tmp_path / "trace/arrays.npz") as file:
        assert "alone/loss" in file.files


def test_traces_of_other_numbers_of_ranks_are_not_alike(traced: Callable[..., Path], tmp_path: Path) -> None:
    for name, world in zip(FRAMEWORKS, (1, WORLD), strict=True):
        shutil.copytree(traced(name, world, "everything"), tmp_path / name)
    for order in (FRAMEWORKS, FRAMEWORKS[::-1]):
        one, other = (Trace(name, tmp_path / name) for name in order)
        first, *_ = compare_traces(one, other, compose().parity)
        assert not first.passed
        assert "train.world" in first.verdict


def test_parity_has_a_level_for_ranks(traced: Callable[..., Path], tmp_path: Path) -> None:
    def levels(limit: float = 1e-10) -> dict[str, Level]:
        one, other = (Trace(name, tmp_path / name) for name in FRAMEWORKS)
        found = compare_traces(one, other, compose([f"parity.ranks={limit}"]).parity)
        return {level.name: level for level in found}

    for name in FRAMEWORKS:
        shutil.copytree(traced(name, WORLD, "everything"), tmp_path / name)
    found = levels()
    assert {"ranks", "ranks reference", "ranks crossed"} <= found.keys()
    assert all(level.passed for level in found.values())
    assert not levels(1e-18)["ranks"].passed
    path = tmp_path / "pytorch/arrays.npz"
    with np.load(path) as file:
        changed = {name: file[name] for name in file.files}
    changed["alone/loss"][7] += 1e-8
    np.savez(path, **changed)
    found = levels()
    assert [name for name, level in found.items() if not level.passed] == ["ranks"]
    assert found["ranks"].where == "loss of step 7"


def test_compiled_steps_exchange_as_well(traced: Callable[..., Path]) -> None:
    more = ("train.execution=compiled", "trace.steps=8", "train/optimizer=momentum")  # PyTorch's compiler takes minutes
    alone, together = (traced("tensorflow", world, "plain", *more) for world in (1, WORLD))
    assert deviation(alone, together) <= 1e-10


def test_speed_of_ranks_has_an_efficiency(tmp_path: Path) -> None:
    config = compose(["train.world=2", "train.threads=1", "train.batch_size=16", *TINY[:1]])
    speed = config.compare.speed.model_copy(update={"restarts": 2, "rounds": 2, "block_seconds": 0.02})
    dataset = Dataset.open(noise(tmp_path / "data", (28, 28, 1), classes=10))
    arms = measure(dataset, config.model, config.train, speed, FRAMEWORKS).arms
    for arm in arms.values():
        assert (arm.world, arm.threads) == (2, 1)
        assert arm.efficiency is not None
        assert arm.alone_images_per_second is not None
        assert arm.efficiency.n == 2
        assert 0 < arm.efficiency.mean < 1.5


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy = clone_project(tmp_path / "project")
    edit(copy / "conf/data/_base.yaml", max_train="3000")
    return copy


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "models/seed_0/weights.safetensors")


def ranks_of(project: Path) -> list[psutil.Process]:
    """The ranks that train in a project, but for rank 0, of which they are children: itself a warm worker's child."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "pipeline.ranks.follower" in each.cmdline() and each.cwd() == str(project):
                found.append(each)
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_rank_that_is_killed_ends_all_and_the_same_command_goes_on(project: Path, framework: str) -> None:
    call = (*TRAIN, f"framework={framework}", "train.epochs=40", f"train.world={WORLD}")
    whole = run_module(project, *call, "hydra.run.dir=outputs/whole")
    assert whole.returncode == 0, whole.stderr
    process = start(project, *call, "hydra.run.dir=outputs/killed", cold=True)
    until(process, "s0 epoch 2/40")
    (victim,) = ranks_of(project)
    victim.kill()
    began = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 1
    assert "error: rank 1 (" in said
    assert f", process {victim.pid}) was ended by SIGKILL, during " in said
    assert "Traceback" not in said
    again = run_module(project, *call, "hydra.run.dir=outputs/killed")
    assert again.returncode == 0, again.stderr
    assert "continued from a checkpoint" in again.stdout
    expected, got = weights(project / "outputs/whole"), weights(project / "outputs/killed")
    assert all((expected[name] == got[name]).all() for name in expected)
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.seed = '0'")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    for run in runs:
        assert run.data.tags["world"] == run.data.params["train.world"] == "2"
        facts = json.loads(Path(client.download_artifacts(run.info.run_id, "environment.json")).read_bytes())
        assert [rank["rank"] for rank in facts["ranks"]] == [0, 1]
        assert {rank["device"]["threads"] for rank in facts["ranks"]} == {1}
    alone = run_module(project, *call[:-1], "hydra.run.dir=outputs/alone")
    assert alone.returncode == 0, alone.stderr
    first = [
        (project / "outputs" / name / "history.csv").read_text().splitlines()[1].split(",")
        for name in ("whole", "alone")
    ]
    assert float(first[0][3]) == pytest.approx(float(first[1][3]), rel=1e-4)


def test_the_rank_that_died_is_named_and_not_those_that_failed_without_it(project: Path) -> None:
    call = (*TRAIN, "framework=pytorch", "train.epochs=400", "train.world=3", "hydra.run.dir=outputs/out")
    process = start(project, *call, cold=True)
    until(process, "s0 epoch 2/400")
    first, last = sorted(ranks_of(project), key=lambda rank: rank.cmdline()[-1])
    last.kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"error: rank 2 ({platform.node()}, process {last.pid}) was ended by SIGKILL, during " in said
    assert "Traceback" not in said
    assert not first.is_running()


def test_a_rank_that_refuses_alone_ends_all(project: Path) -> None:
    """It has refused before it meets the others, who would wait for it."""
    port = connection.free_port("127.0.0.1")
    call = (*TRAIN, "framework=pytorch", "train.execution=compiled", "hydra.run.dir=outputs/out")
    began = time.monotonic()
    lacking = {"PATH": "/nowhere", "CXX": "", "CC": ""}
    ranks = [
        start(project, *call, cold=True, **variables_of("TF_CONFIG", rank, port), **(lacking if rank else {}))
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in ranks]
    assert time.monotonic() - began < 60
    assert [process.returncode for process in ranks] == [2, 2], said
    assert re.search(r"error: rank 1 \(.*\): train.execution = compiled: torch.compile needs a C\+\+ compiler", said[0])
    assert "Traceback" not in "".join(said)


def test_a_rank_that_fails_is_named_with_its_traceback(monkeypatch: pytest.MonkeyPatch, pair: tuple[Any, Any]) -> None:
    there, here = pair
    watch = Watch([Member(1, "node", 7, "", there, there)], ())
    monkeypatch.setattr(watch, "_end_if_stuck", lambda: None)
    connection.send(here, Message("alive"))
    connection.send(here, Message("failed", {"reason": "MemoryError: 3 GiB", "traceback": "Traceback ...\n"}))
    here.close()
    with pytest.raises(RankLostError, match=r"rank 1 \(node, process 7\) failed: MemoryError: 3 GiB, during"):
        watch.explain(OSError("broken pipe"))


@pytest.mark.parametrize("limit", ["SILENT_SECONDS", "_SUSPECT_SECONDS"])  # without an error, and after one
def test_a_rank_that_says_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, pair: tuple[Any, Any], limit: str) -> None:
    monkeypatch.setattr(f"pipeline.ranks.watch.{limit}", 1.5)
    watch = Watch([Member(1, "node", 7, "", pair[0], pair[0])], ())
    monkeypatch.setattr(watch, "_end_if_stuck", lambda: None)
    connection.send(pair[1], Message("alive"))
    with pytest.raises(
        RankLostError, match=r"rank 1 .* has said nothing for [234] s: it hangs, or its machine is gone"
    ):
        watch.explain(OSError("timed out"))


@pytest.mark.parametrize("hangs", [True, False])
def test_a_rank_ends_when_rank_0_hangs_or_is_gone(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Any, Any], capsys: pytest.CaptureFixture[str], hangs: bool
) -> None:
    def ended(code: int) -> None:
        raise SystemExit(code)

    def leads() -> None:
        for _ in range(10):
            connection.send(pair[1], Message("alive"))
            time.sleep(0.2)
        if not hangs:
            pair[1].close()

    monkeypatch.setattr("pipeline.ranks.follower.SILENT_SECONDS", 1.0)
    monkeypatch.setattr("pipeline.ranks.follower.ALIVE_SECONDS", 0.3)
    monkeypatch.setattr("pipeline.ranks.follower.os._exit", ended)
    thread, began = threading.Thread(target=leads), time.monotonic()
    thread.start()
    with pytest.raises(SystemExit) as raised:
        follower._end_with(pair[0], 1)
    thread.join()
    assert raised.value.code == 1
    assert time.monotonic() - began > (2.5 if hangs else 1.8)
    said = "error: rank 1: rank 0 has said nothing for 1 s: it hangs, or its machine is gone\n"
    assert capsys.readouterr().err == (said if hangs else "")
    if hangs:
        assert connection.receive(pair[1]).name == "alive"


def test_a_rank_that_is_killed_before_it_joins_is_named() -> None:
    with connection.listen("127.0.0.1", 0) as server, subprocess.Popen(["sleep", "60"]) as process:
        process.kill()
        process.wait()
        expected = rf"rank 1 \(process {process.pid}\) was ended by SIGKILL before it joined"
        with pytest.raises(RankLostError, match=expected):
            joining._await(server, 2, Badge("token"), [process])


@pytest.mark.parametrize(
    ("launcher", "way_out"),
    [("torchrun", "another --master-port"), ("srun", "another job step"), ("TF_CONFIG", "of the first worker")],
)
def test_a_port_that_is_taken_is_named_with_the_way_out(launcher: str, way_out: str) -> None:
    with connection.listen("127.0.0.1", 0) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port}: Address already in use; .* allowed: .*{way_out}"):
            joining.join(Launch(launcher, 0, 2, "127.0.0.1", port, 1, 0))


def test_tensorflow_does_not_wait_for_ever_for_a_rank_that_ended_while_it_connects() -> None:
    ports = [connection.free_port("127.0.0.1") for _ in range(2)]
    source = f"""
from pipeline.models.share import Share
from pipeline.models.tensorflow import peers
peers._CONNECT_SECONDS = 1
peers.Peers(Share(0, 2, ("127.0.0.1:{ports[0]}", "127.0.0.1:{ports[1]}")))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "DeadlineExceededError" in done.stderr


HELLO = {"rank": 1, "badge": asdict(Badge("t", "w")), "kind": "work", "host": "node", "pid": 7, "port": 9}


def test_a_rank_of_other_arguments_ends_all_at_once() -> None:
    with connection.listen("127.0.0.1", 0) as server:
        rank = connection.connect("127.0.0.1", server.getsockname()[1], "rank 0")
        connection.send(rank, Message("hello", HELLO))
        with pytest.raises(UserError, match=r"rank 1 at .* was started with other arguments, .*; allowed: the same"):
            joining._await(server, 2, Badge("t", "other"), ())
        assert "was started with other arguments" in connection.receive(rank).facts["text"]
        rank.close()


def test_what_a_rank_can_check_itself_ends_it_before_it_waits(project: Path) -> None:
    with connection.listen("", 0) as server:
        taken = server.getsockname()[1]
        workers = ["127.0.0.1:1", f"127.0.0.1:{taken}"]
        config = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": 1}})
        done = run_module(project, *TRAIN, TF_CONFIG=config)
        said = f"error: port {taken}: Address already in use; rank 1 is to listen there; allowed: another port of this"
        assert (done.returncode, done.stderr[: len(said)]) == (2, said)
    launched = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = run_module(project, *TRAIN, "train.epochs=0", **launched)
    assert (done.returncode, done.stderr[:24]) == (2, "error: train.epochs = 0:")


def test_strangers_at_the_port_do_not_keep_the_ranks_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HELLO_SECONDS", 0.3)
    with connection.listen("127.0.0.1", 0) as server, contextlib.ExitStack() as stack:
        port = server.getsockname()[1]
        odd = ({"badge": {"training": 5}}, {"badge": {"training": "\u00fc"}}, {"badge": 7}, {"badge": {"x": "t"}})
        for facts in odd:
            stranger = stack.enter_context(connection.connect("127.0.0.1", port, "rank 0"))
            connection.send(stranger, Message("hello", HELLO | facts))
        for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x08abc"):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stranger.sendall(words)
        other = [connection.connect("127.0.0.1", port, "rank 0") for _ in range(4)]
        another = {"badge": {"training": "another", "work": "w"}}
        for each, facts in zip(other, (another, {"kind": "work"}, {}, {"kind": "life"}), strict=True):
            connection.send(each, Message("hello", HELLO | facts))
        (member,) = joining._await(server, 2, Badge("t", "w"), ())
        said = [connection.receive(each) for each in other]
        assert [each.name for each in said] == ["refused", "welcome", "refused", "welcome"]
        assert said[0].facts["text"] == "this rank is of another training"
        assert said[2].facts["text"] == "another rank 1 has joined already; allowed: each once"
        assert (member.name, member.address) == ("rank 1 (node, process 7)", "127.0.0.1:9")
        threading.Timer(1, connection.send, (other[1], Message("done"))).start()
        assert connection.receive(member.work).name == "done"  # it waits for ever now
        for each in (*other, member.work, member.life):
            each.close()


@given(st.integers(1, 6), st.integers(6, 20), st.integers(0, 5), st.integers(0, 3))
def test_the_ranks_are_sent_the_examples_that_they_compute(world: int, size: int, more: int, steps: int) -> None:
    count = steps * size + world + more
    order = np.random.default_rng(0).permutation(count + 5)[:count]
    draws = np.zeros((count, 5), np.int64)
    plan = EpochPlan(order, size, np.zeros(-(-count // size)), np.zeros(-(-count // size), np.int64), draws)
    if int(plan.batch_sizes.min()) < world:
        return
    parts = [classifier._examples(plan, rank, world) for rank in range(world)]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.sort(order))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_streamed_data_give_the_same_bits_in_ranks(project: Path, framework: str) -> None:
    found = []
    for name, more in (("resident", ()), ("streamed", ("train.memory_mebibytes=1",))):
        call = (*TRAIN, f"framework={framework}", f"train.world={WORLD}", *more, f"hydra.run.dir=outputs/{name}")
        done = run_module(project, *call)
        assert done.returncode == 0, done.stderr
        assert ("images streamed from disk" in done.stdout) == bool(more)
        found.append({key: value.tobytes() for key, value in weights(project / "outputs" / name).items()})
    assert found[0] == found[1]


@pytest.mark.parametrize(("framework", "whom"), [*itertools.product(FRAMEWORKS, ("command", "rank 1", "group"))])
def test_sigterm_saves_a_checkpoint_in_ranks(project: Path, framework: str, whom: str) -> None:
    call = (*TRAIN, f"framework={framework}", "train.epochs=2000", f"train.world={WORLD}", "hydra.run.dir=outputs/out")
    process = start(project, *call, cold=True)
    until(process, "s0 epoch 2/2000")
    (follower,) = ranks_of(project)
    (os.killpg if whom == "group" else os.kill)(follower.pid if whom == "rank 1" else process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert not psutil.wait_procs([follower], timeout=10)[1]
    found = re.search(r"stands at (epoch \d+, step \d+); run the same command to continue", said)
    assert found, said
    (stands,) = found.groups()
    process = start(project, *call, cold=True)
    until(process, f"goes on at {stands}: continued")
    process.terminate()
    process.communicate(timeout=30)


def test_rank_0_killed_ends_all(project: Path) -> None:
    call = (*TRAIN, "framework=pytorch", "train.epochs=400", f"train.world={WORLD}", "hydra.run.dir=outputs/out")
    process = start(project, *call, cold=True)
    until(process, "s0 epoch 2/400")
    followers = ranks_of(project)
    (leader,) = {each.parent() for each in followers}
    assert leader is not None
    leader.kill()
    assert not psutil.wait_procs(followers, timeout=10)[1]
    said, _ = process.communicate(timeout=60)
    assert "error: rank 0 was ended by SIGKILL; run the same command to continue" in said
    other = start(project, *call[:-1], "train.world=1", "hydra.run.dir=outputs/other", cold=True)
    said = until(other, "begins anew")
    assert "a checkpoint of train.world=2 exists" in said
    other.kill()
    other.communicate()


def variables_of(launcher: str, rank: int, port: int) -> dict[str, str]:
    if launcher == "TF_CONFIG":
        workers = [f"127.0.0.1:{port}", f"127.0.0.1:{port + 10}"]
        return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}})}
    names = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank), "SLURM_JOB_ID": str(port)}
    return names | {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("framework", "launcher"), [("tensorflow", "TF_CONFIG"), ("pytorch", "TF_CONFIG"), ("tensorflow", "srun")]
)
def test_ranks_that_a_launcher_started_find_each_other(project: Path, framework: str, launcher: str) -> None:
    port = connection.free_port("127.0.0.1")
    arguments = (f"framework={framework}", "train.epochs=1", "hydra.run.dir=outputs/out")
    # the port of rank 0 is beside the one that is free now, or computed from the job's number
    ranks = [start(project, *TRAIN, *arguments, cold=True, **variables_of(launcher, rank, port)) for rank in range(2)]
    said = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    assert said[1] == ""
    assert json.loads((project / "outputs/out/manifest.json").read_text())["settings"]["train"]["world"] == 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_torchrun_starts_the_ranks(project: Path, framework: str) -> None:
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "-m"]
    arguments = [*TRAIN, f"framework={framework}", "train.epochs=40", "hydra.run.dir=outputs/out"]
    process = subprocess.Popen(
        [*torchrun, *arguments], cwd=project, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    until(process, "s0 epoch 2/40")
    (rank,) = (each for each in psutil.Process(process.pid).children() if each.environ()["RANK"] == "1")
    rank.kill()
    process.communicate(timeout=60)
    assert process.returncode == 1

    def launch(*call: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*torchrun, *call],
            cwd=project,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    done = launch(*arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "continued from a checkpoint" in done.stdout  # though torchrun sets other variables at each start
    assert json.loads((project / "outputs/out/manifest.json").read_text())["settings"]["train"]["world"] == 2
    sweep = launch(*arguments[:-1], "-m")
    assert "-m: torchrun started 2 ranks for one training; allowed: a sweep without torchrun" in sweep.stderr
    other = launch(*arguments, "train.world=3")
    assert (
        "train.world = 3: torchrun started 2 ranks; allowed: 2, or a start without torchrun"
        in other.stderr.splitlines()[-2]  # where torchrun tells the first failure
    )
    assert other.returncode == 1  # torchrun's own


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ray_train_starts_the_ranks_as_documented(project: Path, framework: str) -> None:
    text = (Path(__file__).parents[1] / "docs/ranks.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (project / "outputs").mkdir()
    (project / "outputs/on_ray.py").write_text(script, encoding="utf-8")
    arguments = (f"framework={framework}", "train.epochs=1", "train.threads=1", "hydra.run.dir=outputs/out")
    done = subprocess.run(
        [sys.executable, "outputs/on_ray.py", *TRAIN[1:], *arguments],
        cwd=project,
        env=clean_environment() | {"RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    manifest = json.loads((project / "outputs/out/manifest.json").read_text())
    assert (manifest["framework"]["name"], manifest["settings"]["train"]["world"]) == (framework, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.world=0"], "train.world = 0"),
        (["train.world=4", "train.batch_size=3"], r"train.world = 4: a batch of 3 examples leaves ranks without one"),
        (
            ["framework=tensorflow", "train.world=2", "model=resnet8", "train.execution=compiled"],
            "train.execution = compiled: XLA cannot compile batch norm over train.world = 2 ranks",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(project: Path, overrides: list[str], message: str) -> None:
    framework = [] if any(each.startswith("framework") for each in overrides) else ["framework=pytorch"]
    done = run_module(project, "pipeline.train", "seeds=[0]", "train.threads=1", *framework, *overrides)
    assert done.returncode == 2, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_framework_of_one_process_says_so() -> None:
    from pipeline.models.architecture import Architecture
    from pipeline.ranks.classifier import create

    config = compose(["train.world=2"])
    frameworks.register(NUMPY)
    try:
        with pytest.raises(UserError, match=r"train.world = 2: NumPy trains in one process; allowed: 1"):
            create("numpy", Architecture(config.model, (28, 28, 1), 10), config.train)
    finally:
        frameworks.FRAMEWORKS.pop("numpy")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, None),
        (
            {
                "RANK": "3",
                "WORLD_SIZE": "8",
                "MASTER_ADDR": "a",
                "MASTER_PORT": "29500",
                "LOCAL_WORLD_SIZE": "4",
                "LOCAL_RANK": "3",
            },
            ("torchrun", 3, 8, "a", 29501, 4, 3),
        ),
        (
            {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1", "LOCAL_RANK": "2"},
            ("torchrun", 3, 8, "a", 2, 1, 2),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, None),  # a batch script, before srun
        (
            {
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NODELIST": "gpu[07-09]",
                "SLURM_JOB_ID": "100",
                "SLURM_STEP_ID": "2",
                "SLURM_LOCALID": "1",
            },
            ("srun", 1, 4, "gpu07", 20702, 1, 1),
        ),
        (
            {"TF_CONFIG": '{"cluster": {"worker": ["a:10", "b:10", "a:12"]}, "task": {"type": "worker", "index": 2}}'},
            ("TF_CONFIG", 2, 3, "a", 11, 2, 1),
        ),
    ],
)
def test_a_launcher_is_understood(environment: dict[str, str], expected: tuple[Any, ...] | None) -> None:
    launch = found(environment)
    told = launch and tuple(getattr(launch, name) for name in TOLD)
    assert told == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}'},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "task": {"type": "ps", "index": 0}}'},
        *(
            {"TF_CONFIG": text}
            for text in ("{}", "[]", "3", '{"cluster": {"worker": ["a:1"]}}', '{"cluster": 1, "task": 2}')
        ),
        *(
            {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})}
            for workers, index in (
                (["a", "b:1"], 0),
                (["a:1", "b:99999"], 0),
                (["a:65535", "b:1"], 0),
                (["a:1", "a:1"], 0),
                ("a:1", 0),
                ([], 0),
                (["a:1", 7], 0),
                (["a:1", "b:1"], None),
                (["a:1", "b:1"], -1),
                (["a:1", "b:1"], True),
            )
        ),
        *(
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"} | {name: value}
            for name, value in (
                *(("RANK", value) for value in ("x", "-1", "2")),
                *(("WORLD_SIZE", value) for value in ("-3", "0", "two")),
                *(("MASTER_PORT", value) for value in ("0", "65535", "70000")),
                ("LOCAL_WORLD_SIZE", "3"),
            )
        ),
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "a", "SLURM_JOB_ID": "1"},
    ],
)
def test_what_no_launcher_says_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"^\w+ = .*[:;] allowed") as raised:
        found(environment)
    assert "NoneType" not in str(raised.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("n[1-3,7]", "n1"),
        ("n[01,02]", "n01"),
        ("n[1-2]-ib,m3", "n1-ib"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_the_first_host_of_slurm_s_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.fixture
def pair() -> Iterator[tuple[Any, Any]]:
    with connection.listen("127.0.0.1", 0) as server:
        port, there = server.getsockname()[1], []
        thread = threading.Thread(target=lambda: there.append(connection.connect("127.0.0.1", port, "rank 0")))
        thread.start()
        here, host = connection.accept(server, 5)
        thread.join()
        assert host == "127.0.0.1"
        yield here, there[0]
        here.close()
        there[0].close()


def test_a_message_arrives_as_it_was_sent(pair: tuple[Any, Any]) -> None:
    arrays = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::-1],
        "none": np.zeros((3, 0), np.int64),
        "scalar": np.array(0.1),
        "single": np.float32([1e-30, np.nan]),
    }
    connection.send(pair[0], Message("call", {"a": [1, None, "ä"]}, arrays))
    got = connection.receive(pair[1])
    assert (got.name, got.facts) == ("call", {"a": [1, None, "ä"]})
    for name, value in arrays.items():
        assert got.arrays[name].dtype == value.dtype
        assert got.arrays[name].shape == value.shape
        np.testing.assert_array_equal(got.arrays[name], value)


@pytest.mark.parametrize("content", [b"", b"x", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 40, b"GET / HTTP/1.1\r\n\r\n"])
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        Message.unpacked(content)
