"""`pipeline.doctor` tells what would fail later, in seconds."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from project_copy import ROOT, clone_project, run, run_module
from servers import answering, nobody

from pipeline import doctor
from pipeline.config.compose import compose
from pipeline.config.schema.data import DataConfig
from pipeline.core import machine
from pipeline.diagnosis import data_check
from pipeline.tracking import health
from pipeline.tracking.journal import Journal
from pipeline.tracking.tracker import Tracker


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = clone_project(tmp_path / "project", store=False)
    shutil.copy(ROOT / "requirements.lock", project)
    return project


def test_a_good_project_is_told_to_be_good_within_ten_seconds(project: Path) -> None:
    began = time.monotonic()
    done = run_module(project, "pipeline.doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 10
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}
    wanted = ("python", "packages", "gpu", "disk", "store", "journal", "checkpoints", "configuration", "data", "dvc")
    assert {line.split()[1] for line in lines} >= set(wanted)
    assert not (project / "mlflow.db").exists()
    assert run(project, "git", "status", "--porcelain").stdout == "?? requirements.lock\n"


def found(project: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, tuple[str, str]]:
    monkeypatch.chdir(project)
    findings: dict[str, tuple[str, str]] = {}
    for finding in doctor.examine(arguments, project):
        mark, said = findings.get(finding.check, ("ok", ""))
        findings[finding.check] = (mark if finding.mark == "ok" else finding.mark, f"{said}{finding.message}\n")
    return findings


def _old_schema(project: Path) -> None:
    with sqlite3.connect(project / "mlflow.db") as store:
        store.execute("CREATE TABLE alembic_version (version_num TEXT)")
        store.execute("INSERT INTO alembic_version VALUES ('0123456789ab')")
    store.close()


def _unsent(project: Path) -> None:
    journal = Journal.create(project)
    journal.append({"event": "begin", "name": "r", "store": ""})
    journal.close()


def _trains(project: Path) -> None:
    folder = project / "checkpoints/pytorch-1"
    folder.mkdir(parents=True)
    holder = {"pid": os.getpid(), "host": os.uname().nodename, "since": 0}
    (folder / "holder.json").write_text(json.dumps(holder))


def _unreadable_lock(project: Path) -> None:
    (project / ".dvc/tmp").mkdir()
    (project / ".dvc/tmp/rwlock").write_text(json.dumps({"/x": {"write": {"pid": 2**22 + 5, "cmd": "dvc repro"}}}))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _deleted(project: Path) -> None:
    tracking = compose().tracking
    tracker = Tracker(tracking, project)
    tracker.client.delete_experiment(tracker.experiment_id)


def _garbage_in_a_journal(project: Path) -> None:
    _unsent(project)
    (events,) = project.glob("journal/*/events.jsonl")
    events.write_bytes(events.read_bytes() + b"garbage\n")


def _junk(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


DEFECTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str, str, str]] = {
    "a store of another version": (_old_schema, (), "store", "FAIL", "mlflow db upgrade"),
    "no database": (lambda p: (p / "mlflow.db").write_text("x" * 5000), (), "store", "FAIL", "not a database"),
    "a mirror that is not there": (lambda _: None, ("data=mnist", "data.mirror=/no/such"), "data", "FAIL", "/no/such"),
    "a server that is not there": (
        lambda _: None,
        ("data=mnist", f"data.mirror={nobody()}"),
        "data",
        "FAIL",
        "refused",
    ),
    "a bad setting": (lambda _: None, ("train.epochs=0",), "configuration", "FAIL", "train.epochs = 0"),
    "unsent runs": (_unsent, (), "journal", "warn", "python -m pipeline.sync"),
    "a trainer": (_trains, (), "checkpoints", "ok", f"running: pytorch-1 (process {os.getpid()})"),
    "a bad launcher": (lambda _: None, ("hydra/launcher=no",), "configuration", "FAIL", "hydra/launcher = 'no': unk"),
    "a bad job": (lambda _: None, ("train.batch_size=0,3",), "configuration", "FAIL", "train.batch_size = 0: "),
    "a good search": (
        lambda _: None,
        ("hydra/sweeper=search", "train.batch_size=int(interval(4,8))", "search.trials=3"),
        "configuration",
        "ok",
        "valid",
    ),
    "a dead lock": (_unreadable_lock, (), "dvc", "ok", "has ended"),
    "no locks": (lambda p: _write(p / ".dvc/tmp/rwlock", "{garbage"), (), "dvc", "FAIL", "rwlock: cannot be read"),
    "bad stages": (lambda p: _write(p / "dvc.yaml", "a: [1"), (), "dvc", "FAIL", "/dvc.yaml: cannot be read"),
    "a bad lock": (lambda p: _write(p / "dvc.lock", "<<<<<<< a\n"), (), "dvc", "FAIL", "/dvc.lock: cannot be read"),
    "a bad snapshot": (lambda p: _write(p / "params.yaml", "- 1\n"), (), "dvc", "FAIL", "pipeline.config"),
    "bad settings of dvc": (lambda p: _write(p / ".dvc/config", "[core\n"), (), "dvc", "FAIL", ".dvc/config"),
    "a deleted experiment": (_deleted, (), "store", "FAIL", "tracking.experiment = "),
    "no dvc": (lambda p: shutil.rmtree(p / ".dvc"), (), "dvc", "FAIL", "no .dvc folder"),
    "garbage in a journal": (_garbage_in_a_journal, (), "journal", "warn", "events.jsonl, line 2: cannot be read: "),
    "a torn holder": (
        lambda p: _junk(p / "checkpoints/a/holder.json", "{"),
        (),
        "checkpoints",
        "warn",
        "holder.json: ",
    ),
    "no holder": (lambda p: _junk(p / "checkpoints/a/holder.json", "[1]"), (), "checkpoints", "warn", "TypeError"),
    "junk": (lambda p: _junk(p / "checkpoints/junk.txt"), (), "checkpoints", "warn", "no checkpoint: junk.txt"),
    "a file of checkpoints": (lambda p: _junk(p / "checkpoints"), (), "disk", "FAIL", "checkpoints: is no folder"),
    "a link to no journal": (lambda p: (p / "journal").symlink_to("no"), (), "disk", "FAIL", "journal: is no folder"),
    "a lock of git": (lambda p: _junk(p / ".git/index.lock"), (), "git", "warn", "/.git/index.lock: a git command"),
    "another lock of git": (lambda p: _junk(p / ".git/HEAD.lock"), (), "git", "warn", "/.git/HEAD.lock: a git command"),
    "leftovers": (
        lambda p: (p / "data/prepared.building").mkdir(parents=True),
        (),
        "leftovers",
        "ok",
        "prepared.building",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_what_would_fail_is_named(project: Path, monkeypatch: pytest.MonkeyPatch, defect: str) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make, arguments, what, mark, said = DEFECTS[defect]
    make(project)
    finding = found(project, monkeypatch, *arguments)[what]
    assert finding[0] == mark
    assert said in finding[1]


@pytest.mark.parametrize(
    ("uri", "mark", "said"),
    [("ftp://x", "FAIL", "allowed: sqlite"), (nobody(), "warn", "sync")],
    ids=["no store", "away"],
)
def test_a_store_that_is_none_or_away(
    project: Path, monkeypatch: pytest.MonkeyPatch, uri: str, mark: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    finding = found(project, monkeypatch)["store"]
    assert finding[0] == mark
    assert said in finding[1]


def test_the_schema_is_that_of_a_store_that_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Tracker(compose().tracking, tmp_path)
    (finding,) = list(health.database(tmp_path / "mlflow.db"))
    assert finding[0] == "ok"


@pytest.mark.parametrize(
    ("arguments", "host"),
    [
        (("data=cifar10",), "www.cs.toronto.edu"),
        (("data=fashion_mnist",), "fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
        (("data=mnist",), "ossci-datasets.s3.amazonaws.com"),
    ],
)
def test_the_hosts_of_the_configured_data_are_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], host: str
) -> None:
    (project / "data/raw").mkdir(parents=True)
    (project / "data/raw/of_another_data_set").touch()
    monkeypatch.setenv("https_proxy", nobody())
    mark, said = found(project, monkeypatch, *arguments)["data"]
    assert mark == "FAIL"
    assert f"{host}: " in said
    assert "data.mirror" in said


@pytest.mark.parametrize(
    ("status", "mark", "said"),
    [
        ("200 OK", "ok", "answers"),
        ("404 Not Found", "ok", "answers"),
        ("407 Proxy Authentication Required", "FAIL", "HTTP 407"),
        ("502 Bad Gateway", "FAIL", "HTTP 502"),
        ("504 Gateway Timeout", "FAIL", "HTTP 504"),
    ],
)
def test_a_proxy_is_asked_as_the_downloads_ask_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str, mark: str, said: str
) -> None:
    """No name of the host is looked up here: the proxy does that."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    mirrored = compose(["data=mnist", "data.mirror=http://mirror.invalid/files"]).data

    def asked(config: DataConfig, **environment: str) -> tuple[str, str]:
        with monkeypatch.context() as here:
            for name, value in environment.items():
                here.setenv(name, value)
            here.setattr(urllib.request, "_opener", None)  # it keeps the proxies of the process's first call
            (finding,) = data_check.data(config, tmp_path)
        return finding

    with answering(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as proxy:
        found_mark, message = asked(mirrored, http_proxy=proxy)
        assert (found_mark, said in message) == (mark, True), message
        found_mark, message = asked(mirrored, http_proxy=proxy, no_proxy="mirror.invalid")
        assert (found_mark, "HTTP" in message) == ("FAIL", False), message
        found_mark, message = asked(compose(["data=mnist"]).data, https_proxy=proxy)
        assert found_mark == "FAIL"  # what answers is no tunnel
        assert ("Tunnel connection failed" in message) == (not status.startswith("200")), message


def test_a_folder_for_temporary_files_that_is_none_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    mark, said = found(project, monkeypatch)["disk"]
    assert mark == "warn"
    assert "TMPDIR = /nowhere" in said


def test_a_missing_home_and_a_missing_repository_are_told_with_the_way_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project / ".git")
    monkeypatch.setattr(machine, "_ENVIRONMENT", {"HOME": "/no/such"})
    findings = found(project, monkeypatch)
    assert findings["home"][0] == "warn"
    assert "export HOME=" in findings["home"][1]
    assert findings["git"][0] == "warn"
    assert "core.no_scm" in findings["git"][1]
    monkeypatch.setattr(machine, "_ENVIRONMENT", {})
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert found(project, monkeypatch)["home"][0] == "FAIL"


def test_an_unknown_data_set_is_named_with_what_is_allowed(project: Path) -> None:
    """In a process of its own: it imports torchvision."""
    done = run_module(project, "pipeline.doctor", "data=mnist", "data.name=nope", "data.provider=torchvision")
    assert done.returncode == 1
    assert "data.name = nope" in done.stdout
    assert "SVHN" in done.stdout


def test_something_bad_ends_with_1(project: Path) -> None:
    done = run_module(project, "pipeline.doctor", "data=mnist", "data.mirror=/no/such")
    assert done.returncode == 1
    assert done.stderr == "error: 1 of these would make a run fail\n"


def test_cores_are_those_that_this_process_may_use() -> None:
    """A job of a batch system is given a few of many: as many threads as the machine has cores would fight for them."""
    script = "import os; os.sched_setaffinity(0, {0}); from pipeline.core.machine import usable_cores as n; print(n())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
