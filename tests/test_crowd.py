"""Sixteen processes that log into one fresh store at once: no error, no lost row."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import mlflow
import pytest
from project_copy import clean_environment, copy_project
from search_player import play_together
from servers import Mlflow, nobody
from sqlalchemy import create_engine, text

from pipeline.config.compose import compose
from pipeline.config.hydra_compat import Source
from pipeline.core.errors import UserError
from pipeline.search import space
from pipeline.search.record import SearchRecord
from pipeline.search.study import Study
from pipeline.sweeps import workers
from pipeline.tracking.experiments import update_views
from pipeline.tracking.reachable import RefusedError, unreachable_reason
from pipeline.tracking.store import configured_store

PROCESSES, EPOCHS, STEPS = int(os.environ.get("CROWD", "16")), 3, 400
PASSWORD = "s3cr3t-pw"
CODE = f"""
import sys
from pathlib import Path
from pipeline.config.compose import compose
from pipeline.tracking.tracker import Tracker
with Tracker(compose().tracking, Path.cwd()).run(sys.argv[1], tags={{"stage": "train"}}) as run:
    run.log_params({{"own": sys.argv[1]}})
    for epoch in range({EPOCHS}):
        run.log_series({{"loss": [float(sys.argv[1])] * {STEPS}}}, first_step=epoch * {STEPS})
        run.log_metrics({{"accuracy": 0.5, "epoch": epoch}}, step=epoch)
        run.flush()
    run.log_text("x", "x.txt")
"""


def assert_nothing_is_lost(project: Path, uri: str = "", count: int = PROCESSES) -> None:
    environment = clean_environment() | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
    (project / "one_of_many.py").write_text(CODE)
    processes = [
        subprocess.Popen(
            workers.command(None, "one_of_many", str(number)),
            cwd=project,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    said = [process.communicate(timeout=500)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said
    assert not any("wait" in text or "Traceback" in text for text in said), said
    client = mlflow.MlflowClient(uri or f"sqlite:///{project / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert sorted(int(run.info.run_name) for run in found) == list(range(count))
    for run in found:
        assert run.info.status == "FINISHED"
        assert run.data.params == {"own": run.info.run_name}
        history = client.get_metric_history(run.info.run_id, "loss")
        assert sorted(point.step for point in history) == list(range(EPOCHS * STEPS))
        assert {point.value for point in history} == {float(run.info.run_name)}
        assert [p.step for p in client.get_metric_history(run.info.run_id, "epoch")] == list(range(EPOCHS))
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["x.txt"]
    assert not list((project / "journal").glob("*/"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


def test_into_a_fresh_sqlite_store(project: Path) -> None:
    assert_nothing_is_lost(project)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a fresh database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("PostgreSQL is not installed: `apt-get install postgresql`")
    programs, port = found[-1].parent, nobody().rpartition(":")[2]
    folder = Path(tempfile.mkdtemp())  # pytest's folders are its user's alone
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # it refuses to be root
    if as_user:
        shutil.chown(folder, "postgres")
    data, log = folder / "data", folder / "log"
    options = f"-h 127.0.0.1 -p {port} -k {folder}"
    control = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-l", str(log), "-w"]
    initialise = [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "tester", "-A", "scram-sha-256"]
    (folder / "password").write_text(PASSWORD)
    initialise += ["--pwfile", str(folder / "password")]
    subprocess.run(initialise, check=True, capture_output=True, cwd=folder)
    subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        yield f"postgresql+psycopg2://tester:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        shutil.rmtree(folder)


def test_into_a_fresh_postgresql_database(project: Path, postgresql: str) -> None:
    """Without a server between: a quarter of them, as each holds connections of its own."""
    assert_nothing_is_lost(project, postgresql, PROCESSES // 4)
    assert not [path for path in project.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert (project / "mlartifacts").is_dir()


def test_a_database_that_is_not_let_into_is_named_without_its_password(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql)
    shown = configured_store(tmp_path)
    assert shown == postgresql.replace(f":{PASSWORD}", "")
    assert unreachable_reason(shown) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql.replace(PASSWORD, "wr0ng-pw"))
    with pytest.raises(RefusedError, match=r"authentication failed.*set MLFLOW_TRACKING_URI with") as refused:
        unreachable_reason(configured_store(tmp_path))
    assert "wr0ng-pw" not in str(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql.replace("/postgres", "/absent"))
    assert 'database "absent" does not exist' in unreachable_reason(configured_store(tmp_path))


def test_into_a_server_on_postgresql(project: Path, postgresql: str, tmp_path: Path) -> None:
    server = Mlflow(tmp_path / "server", postgresql)
    server.start()
    try:
        assert_nothing_is_lost(project, server.url)
    finally:
        server.kill()


def _search_in(url: str, trials: int) -> SearchRecord:
    overrides = [f"search.trials={trials}", f"search.storage={url.replace(f':{PASSWORD}', '')}"]
    found = space.parse(["train.optimizer.learning_rate=interval(0.1,1)"], Source(), "pytorch")
    facts = {"hydra": (), "config_name": "config", "config_dir": None, "settings": compose(overrides).search}
    return SearchRecord(name="s", parent="", space=found, epochs=3, **facts)


def test_processes_of_a_search_share_a_postgresql_database(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL takes the password from `PGPASSWORD`. MLflow's own database is refused: both keep a version there."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with create_engine(postgresql, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("CREATE DATABASE searches"))
    record = _search_in(postgresql.replace("/postgres", "/searches"), 12)
    trials = play_together(tmp_path, record)
    assert [trial.state for trial in trials] == ["complete"] * 12
    assert len({tuple(trial.point.values()) for trial in trials}) == 12
    mlflow.MlflowClient(postgresql).search_experiments()  # makes MLflow's tables
    with pytest.raises(UserError, match="/postgres: has the tables of something else; allowed: a database"):
        Study(tmp_path, _search_in(postgresql, 2))


def test_a_view_that_another_process_writes_at_the_same_moment_is_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    """PostgreSQL refuses the second of two that insert the same tag."""

    class Client:
        tags: ClassVar[dict[str, str]] = {}
        refused = 0

        def get_experiment(self, _: str) -> Any:
            return SimpleNamespace(tags=dict(self.tags))

        def set_experiment_tag(self, _: str, key: str, value: str) -> None:
            if key not in self.tags:  # the other one's is there first
                self.tags[key] = value
                self.refused += 1
                raise RuntimeError("duplicate key value violates unique constraint")
            raise AssertionError(key)

    client = Client()
    update_views(client, "1", {})
    assert client.refused > 3
    assert not recwarn.list
