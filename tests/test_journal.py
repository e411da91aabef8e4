"""Every point that was logged is in MLflow once, whatever happens in between."""

import contextlib
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from filelock import Timeout
from mlflow.models import Model
from project_copy import run_module
from servers import Mlflow, nobody

from pipeline import sync
from pipeline.config.compose import compose
from pipeline.config.schema.tracking import TrackingConfig
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.journal import Journal, is_local
from pipeline.tracking.outbox import find, send
from pipeline.tracking.runs import Run
from pipeline.tracking.tracker import Tracker

POINTS = 1500  # more than one call takes
COUNTS = {"loss": POINTS, "accuracy": 1, "nothing": 1, "of_model": 1}


@pytest.fixture(scope="module")
def tracking() -> TrackingConfig:
    return compose().tracking


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    server = Mlflow(root / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    yield server
    server.kill()


def model_of(run: Run, name: str) -> None:
    """What `Run.log_model` leaves, without a framework."""
    folder = run.journal.attach_folder("model")
    folder.mkdir()
    (folder / "weights").write_bytes(b"1234")
    Model().save(str(folder / "MLmodel"))
    stored = str(folder.relative_to(run.journal.folder))
    point = ("of_model", 0.5, 1_700_000_000_000, 3)
    run.journal.append({"event": "model", "stored": stored, "name": name, "step": 9, "points": [point]})


def log_everything(run: Run, root: Path) -> None:
    (root / "a.txt").write_text("a")
    run.log_params({"train": {"epochs": 3}, "model": {"name": "x"}})
    run.set_tags({"colour": "red"})
    run.log_series({"loss": [i / POINTS for i in range(POINTS)]}, first_step=0)
    run.log_metrics({"accuracy": 0.5, "nothing": float("nan")}, step=1)
    run.log_text("hello", "hello.txt")
    run.log_file(root / "a.txt", "files")
    run.log_dataset(name="digits", fingerprint="f" * 32, context="training", source={"name": "digits"})
    run.describe("see [it](x/{run_id}/y)")


def state_of(client: mlflow.MlflowClient) -> list[tuple[Any, ...]]:
    """All that the store holds, but for what it chose itself: ids and times of creation."""
    found = []
    experiments = [e.experiment_id for e in client.search_experiments()]
    for run in client.search_runs(experiments, order_by=["attributes.start_time"]):
        points = {
            name: [(p.step, repr(p.value), p.timestamp) for p in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        artifacts = sorted(item.path for item in client.list_artifacts(run.info.run_id))
        inputs = Counter(item.dataset.digest for item in run.inputs.dataset_inputs)
        models = [(client.get_logged_model(m.model_id).status, m.step) for m in run.outputs.model_outputs]
        tags = {name: value for name, value in run.data.tags.items() if name in ("colour", "error")}
        note = run.data.tags["mlflow.note.content"] == f"see [it](x/{run.info.run_id}/y)"
        info = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
        found.append((info, points, dict(run.data.params), tags, note, artifacts, dict(inputs), models))
    return found


def synchronise(*arguments: str) -> int:
    try:
        sync.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("first", [True, False], ids=["killed in between", "absent from the start"])
def test_a_server_that_dies_and_comes_back_has_everything_once(
    server: Mlflow, root: Path, tracking: TrackingConfig, capsys: pytest.CaptureFixture[str], first: bool
) -> None:
    if first:
        server.start()
    tracker = Tracker(tracking, root)
    with tracker.run("parent", tags={"stage": "train"}) as parent:
        parent.describe("see [it](x/{run_id}/y)")
        if first:
            assert tracker.drain()
        with tracker.run("child", parent=parent.reference, tags={"stage": "train"}) as run:
            log_everything(run, root)
            if first:
                assert tracker.drain()
                server.kill()
            run.log_metrics({"accuracy": 0.75}, step=2)
            model_of(run, "m")
    assert is_local(parent.reference) is not first
    said = capsys.readouterr().err
    assert "`python -m pipeline.sync` sends them" in said
    assert "Traceback" not in said
    assert synchronise() == 0
    assert "2 more are being written" in capsys.readouterr().out
    tracker.close()  # as the end of this process would
    assert synchronise() == 1
    assert "does not answer" in capsys.readouterr().err
    server.start()
    assert synchronise() == 0
    assert "0 wait" in capsys.readouterr().out
    client = mlflow.MlflowClient(server.url)
    before = state_of(client)
    assert [(info[0], info[1]) for info, *_ in before] == [("parent", "FINISHED"), ("child", "FINISHED")]
    _, points, params, tags, note, artifacts, inputs, models = before[1]
    assert [step for step, _, _ in points["loss"]] == list(range(POINTS))
    assert [(step, value) for step, value, _ in points["accuracy"]] == [(1, "0.5"), (2, "0.75")]
    assert [value for _, value, _ in points["nothing"]] == ["nan"]
    assert params == {"train.epochs": "3", "model.name": "x"}
    assert tags == {"colour": "red"}
    assert note
    assert artifacts == ["files", "hello.txt"]
    assert inputs == {"f" * 32: 1}
    assert models == [("READY", 9)]
    parent_id, child_id = (
        client.search_runs(["1"], f"attributes.run_name = '{name}'")[0].info.run_id for name in ("parent", "child")
    )
    assert client.get_run(child_id).data.tags["mlflow.parentRunId"] == parent_id
    assert synchronise() == 0
    assert state_of(client) == before
    assert not list((root / "journal").iterdir())


def test_a_crash_between_sending_and_noting_it_changes_nothing(
    root: Path, tracking: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every place where a position is noted, in turn."""

    class CrashError(Exception):
        pass

    monkeypatch.setattr("pipeline.tracking.sender.Sender.add", lambda *_: None)  # only what is told here is sent
    tracker = Tracker(tracking, root)
    client = mlflow.MlflowClient(tracker.uri)
    noted = Journal.acknowledge

    def record(name: str) -> Journal:
        with tracker.run(name, tags={}) as run:
            log_everything(run, root)
            model_of(run, "m")
        journal: Journal = run.journal
        journal.close()
        return Journal(journal.folder)

    def crash_at(count: int) -> int:
        """Send, crash when it is noted for the `count`th time, send again; returns how often it was noted first."""
        journal, calls = record(f"run {count}"), 0

        def counted(self: Journal) -> None:
            nonlocal calls
            calls += 1
            if calls == count:
                raise CrashError
            noted(self)

        monkeypatch.setattr(Journal, "acknowledge", counted)
        with contextlib.suppress(CrashError):
            Delivery(client, "", root).send(journal)
        monkeypatch.setattr(Journal, "acknowledge", noted)
        journal.close()
        again = Journal(journal.folder)
        Delivery(client, "", root).send(again)
        assert again.finish()
        return calls

    places = crash_at(-1)
    assert places >= 10
    for place in range(1, places + 1):
        crash_at(place)
    found = state_of(client)
    assert len(found) == places + 1
    for _info, points, *rest in found:
        assert {name: len(values) for name, values in points.items()} == COUNTS
        assert rest == list(found[0][2:])
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as store:
        models, outputs = (
            store.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("logged_models", "inputs")
        )
        of_models = store.execute("SELECT count(*) FROM logged_model_metrics").fetchone()[0]
    assert models == of_models == places + 1
    assert outputs == 2 * (places + 1)  # a data set and a model each


KILLED = """
import os, signal
from pathlib import Path
from test_journal import log_everything
from pipeline.config.compose import compose
from pipeline.tracking.tracker import Tracker
root = Path.cwd()
tracker = Tracker(compose().tracking, root)
with tracker.run("r", tags={}, run_link=root / "slot") as run:
    log_everything(run, root)
    assert tracker.drain()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_process_was_killed_ends_killed_and_can_go_on(root: Path, tracking: TrackingConfig) -> None:
    slot = root / "slot"
    (root / "killed.py").write_text(f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n{KILLED}")
    done = run_module(root, "killed")
    assert done.returncode == -signal.SIGKILL, done.stderr
    tracker = Tracker(tracking, root)
    (folder,) = (root / "journal").glob("*/")
    with (folder / "events.jsonl").open("ab") as file:  # amid a line
        file.write(b'{"event":"metrics","time":17')
    assert [one.killed for one in find(root)] == [True]
    client = mlflow.MlflowClient(tracker.uri)
    (found,) = client.search_runs([tracker.experiment_id])
    assert found.info.status == "RUNNING"
    assert synchronise() == 0
    assert client.get_run(found.info.run_id).info.status == "KILLED"
    assert client.get_run(found.info.run_id).data.tags["error"] == "its process was killed"
    before = state_of(client)[0][1]
    again = Tracker(tracking, root)
    with again.run("r", tags={}, run_link=slot) as run:
        log_everything(run, root)
        run.log_metrics({"accuracy": 1.0}, step=5)
    (found,) = client.search_runs([tracker.experiment_id])
    assert found.info.status == "FINISHED"
    assert "error" not in found.data.tags
    after = state_of(client)[0][1]
    assert after["loss"] == before["loss"]
    assert after["accuracy"][:1] == before["accuracy"]
    assert [step for step, _, _ in after["accuracy"]] == [1, 5]
    again.release(slot)
    assert not slot.exists()
    assert not list((root / "journal").iterdir())


def test_what_mlflow_refuses_is_kept_and_hinders_nothing(
    root: Path, tracking: TrackingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(tracking, root)
    with tracker.run("r", tags={}) as run:
        run.log_params({"a": 1})
        run.log_params({"a": 2})
        run.log_metrics({"after": 1.0}, step=0)
    assert "MLflow refused" in capsys.readouterr().err
    (found,) = mlflow.MlflowClient(tracker.uri).search_runs([tracker.experiment_id])
    assert (found.data.params, found.data.metrics, found.info.status) == ({"a": "1"}, {"after": 1.0}, "FINISHED")
    (kept,) = (root / "journal").glob("*/refused.jsonl")
    assert '"a":"2"' in kept.read_text().replace(" ", "")


def test_what_waits_can_go_to_another_store(root: Path, tracking: TrackingConfig, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody())
    tracker = Tracker(tracking, root)
    with tracker.run("r", tags={}) as run:
        log_everything(run, root)
    run.journal.close()
    assert synchronise("--to", "ftp://x") == 2
    other = f"sqlite:///{root / 'other.db'}"
    assert synchronise("--to", other) == 0
    (found,) = state_of(mlflow.MlflowClient(other))
    assert len(found[1]["loss"]) == POINTS


def test_who_looks_at_a_journal_while_it_is_removed_leaves_nothing_behind(root: Path) -> None:
    """As the processes of a crowd do, which look for what others left."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for folder in [lock.with_suffix("") for lock in (root / "journal").glob("*.lock")]:
                with contextlib.suppress(Timeout, OSError):
                    journal = Journal(folder)
                    if not journal.finish():
                        journal.close()

    with ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(look) for _ in range(2)]
        try:
            for _ in range(100):
                journal = Journal.create(root)
                journal.append({"event": "end"})
                journal.position.offset = journal.size
                assert journal.finish()
        finally:
            over.set()
    assert not [look.result() for look in looks if look.result()]
    assert not list((root / "journal").iterdir())


def test_a_journal_that_was_sent_but_not_removed_goes_with_the_next_process(
    root: Path, tracking: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended_here(journal: Journal) -> bool:
        journal.close()
        return True

    monkeypatch.setattr(Journal, "finish", ended_here)
    with Tracker(tracking, root).run("left", tags={}) as run:
        run.log_metrics({"loss": 1.0}, step=1)
    monkeypatch.undo()
    assert len(list((root / "journal").glob("*/"))) == 1
    Tracker(tracking, root)
    assert not list((root / "journal").iterdir())


def test_a_journal_that_points_outside_of_itself_is_not_followed(
    root: Path, tracking: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "secret").write_text("s")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody())
    away = Tracker(tracking, root)
    with away.run("r", tags={}) as run:
        run.journal.append({"event": "file", "time": 1, "stored": "../../secret", "folder": None})
    away.close()
    uri = f"sqlite:///{root / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker(tracking, root)
    (failure,) = send(root, find(root), to=uri)
    assert "outside of the journal" in failure
    (found,) = mlflow.MlflowClient(tracker.uri).search_runs([tracker.experiment_id])
    assert not mlflow.MlflowClient(tracker.uri).list_artifacts(found.info.run_id)


DAMAGED = (
    (b"\x00\xff garbage", "line 3: cannot be read: "),
    (b'{"event":"metrics","time":1,"step"', "line 4: cannot be read: "),
    (b"[1,2]", "line 5: cannot be read: is no event"),
    (b'{"event":"metrics","time":1,"step":0}', "line 6: cannot be read: metrics without values"),
    (b"", "line 7: cannot be read: "),
    (b'{"event":"nope","time":1}', "'nope' is no kind of event"),
    (b'{"event":"file","time":1,"stored":"files/gone/x","folder":null}', "files/gone/x: is missing"),
)


def test_lines_that_cannot_be_read_are_named_and_the_rest_is_sent(
    root: Path, tracking: TrackingConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a damaged disk leaves them; a first line that cannot be read keeps its run alone from being sent."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody())
    tracker = Tracker(tracking, root)
    with tracker.run("good", tags={}), tracker.run("r", tags={}) as run, tracker.run("nameless", tags={}) as nameless:
        run.log_metrics({"before": 1.0}, step=1)
        run.set_tags({"colour": "red"})
        run.log_metrics({"after": 2.0}, step=1)
    tracker.close()
    events, first = run.journal.folder / "events.jsonl", nameless.journal.folder / "events.jsonl"
    lines = events.read_bytes().split(b"\n")
    events.write_bytes(b"\n".join([*lines[:2], *(line for line, _ in DAMAGED), *lines[2:]]))
    first.write_bytes(b"garbage\n" + first.read_bytes().partition(b"\n")[2])
    before = first.read_bytes()
    assert [len(one.unreadable) for one in find(root)] == [0, 5, 1]

    other = f"sqlite:///{root / 'other.db'}"
    assert synchronise("--to", other) == 1
    said = capsys.readouterr().err
    assert all(wrong in said for _, wrong in DAMAGED)
    assert f"{events}, line 3" in said
    assert said.count("; the rest was sent") == len(DAMAGED)
    assert f"{first}, line 1: cannot be read: " in said
    assert first.read_bytes() == before
    client = mlflow.MlflowClient(other)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = {each.info.run_name: each for each in client.search_runs(experiments)}
    assert {name: each.info.status for name, each in found.items()} == {"good": "FINISHED", "r": "FINISHED"}
    assert found["r"].data.metrics == {"before": 1.0, "after": 2.0}
    assert found["r"].data.tags["colour"] == "red"
    assert len((events.parent / "refused.jsonl").read_text().splitlines()) == len(DAMAGED)
    assert synchronise("--to", other) == 1  # until somebody has looked at it
