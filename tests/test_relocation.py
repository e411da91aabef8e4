"""A repository that is moved, renamed or copied: its artifacts are found, and new ones are written beside its store."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import list_artifacts
from project_copy import once
from servers import Mlflow

from pipeline.config.compose import compose
from pipeline.tracking import health
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.mlflow_compat import ARTIFACT_COLUMNS
from pipeline.tracking.store import ensure_store
from pipeline.tracking.tracker import Tracker


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A main root with a store, a run with a file, a model and a model version, and a run without a file."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "old_%name #1"  # with what LIKE and URLs take for something else
    root.mkdir()
    shutil.copy(once("store", ensure_store) / "mlflow.db", root)
    assert log(root) == root / "mlartifacts"
    log(root, empty=True)
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name(compose().tracking.experiment)
    model = client.create_logged_model(experiment.experiment_id, "network")
    (root / "weights").write_bytes(b"1234")
    client.log_model_artifact(model.model_id, str(root / "weights"))
    client.create_registered_model("best")
    client.create_model_version("best", model.artifact_location)
    return root


def log(root: Path, *, empty: bool = False) -> Path | None:
    """Log a run with a file, or without one; return the folder of artifacts that the file is in."""
    tracker = Tracker(compose().tracking, root)
    with tracker.run("r", tags={}) as run:
        if not empty:
            run.log_text("hello", "a/hello.txt")
    tracker.close()
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow may set it
    return next((file.parents[3] for file in root.parent.rglob(f"{run.reference}/artifacts/a/hello.txt")), None)


def texts(root: Path) -> list[str]:
    """What MLflow's client finds of the runs' files and of the model."""
    client, found = MlflowClient(f"sqlite:///{root}/mlflow.db"), []
    experiment = client.get_experiment_by_name(compose().tracking.experiment)
    for run in client.search_runs([experiment.experiment_id]):
        for item in client.list_artifacts(run.info.run_id, "a"):
            found.append(Path(client.download_artifacts(run.info.run_id, item.path)).read_text(encoding="utf-8"))
    for model in client.search_logged_models([experiment.experiment_id]):
        found += [Path(item.path).name for item in list_artifacts(model.artifact_location)]
    return found


def places(root: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as store:
        rows = [store.execute(f"SELECT {column} FROM {table}").fetchall() for table, column in ARTIFACT_COLUMNS]
    return [place for table in rows for (place,) in table if place]


def findings(root: Path) -> list[tuple[str, str]]:
    return list(health.store(root))[1:]


def test_a_moved_repository_has_its_artifacts_and_writes_new_ones_beside_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = root.rename(root.parent / "new name")
    ((mark, said),) = findings(new)
    assert (mark, "the next run corrects 7 paths" in said) == ("ok", True)
    ensure_store(new)
    assert f"moved from {root}; 7 paths of artifacts corrected" in capsys.readouterr().out
    assert texts(new) == ["hello", "weights"]
    assert log(new) == new / "mlartifacts"
    assert all(place.startswith((new / "mlartifacts").as_uri()) for place in places(new))
    assert not root.exists()
    assert findings(new) == []


def test_the_ui_of_a_moved_repository_shows_its_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the interface that the pages of the UI read."""
    import urllib.request

    new = root.rename(root.parent / "new")
    ensure_store(new)
    client = MlflowClient(f"sqlite:///{new}/mlflow.db")
    run = client.search_runs(["1"])[-1]
    server = Mlflow(new / "server", f"sqlite:///{new}/mlflow.db")
    server.start()
    try:
        with urllib.request.urlopen(f"{server.url}/get-artifact?path=a/hello.txt&run_id={run.info.run_id}") as answer:
            assert answer.read() == b"hello"
    finally:
        server.kill()


def test_a_copy_is_on_its_own_and_takes_nothing_from_the_original(root: Path) -> None:
    before, copy = places(root), root.parent / "copy"
    shutil.copytree(root, copy)
    assert log(copy) == copy / "mlartifacts"
    assert log(root) == root / "mlartifacts"
    assert texts(copy) == ["hello", "hello", "weights"]
    shutil.rmtree(copy)
    assert texts(root) == ["hello", "hello", "weights"]
    assert before == [place for place in places(root) if place in before]


def test_a_copy_of_the_store_alone_shows_the_files_of_the_original_and_writes_its_own(root: Path) -> None:
    copy = root.parent / "copy"
    copy.mkdir()
    shutil.copy(root / "mlflow.db", copy)
    assert log(copy) == copy / "mlartifacts"
    assert texts(copy) == ["hello", "hello", "weights"]
    ((mark, said),) = findings(copy)
    assert mark == "warn"
    assert f"are in {root / 'mlartifacts'}, not beside the store" in said


def test_artifacts_that_an_earlier_version_wrote_to_the_old_place_can_be_moved_after_it(root: Path) -> None:
    """It wrote to where the repository had been."""
    new = root.parent / "new"
    shutil.copytree(root, new)
    late = log(root)
    assert late
    shutil.copy(root / "mlflow.db", new)
    (root / "mlflow.db").unlink()
    for folder in new.glob("mlartifacts/*"):  # all but those of the late run moved
        shutil.rmtree(late / folder.name)
    ensure_store(new)
    assert texts(new) == ["hello", "hello", "weights"]
    ((mark, said),) = findings(new)
    assert (mark, f"1 places of artifacts are in {late}" in said) == ("warn", True)
    (moved,) = late.iterdir()
    moved.rename(new / "mlartifacts" / moved.name)
    ensure_store(new)
    shutil.rmtree(root)
    assert texts(new) == ["hello", "hello", "weights"]
    assert findings(new) == []


def test_what_somebody_has_put_elsewhere_stays_there(root: Path) -> None:
    """Such as a large disk, also while it is not mounted."""
    disk = root.parent / "disk"
    (disk / "mlartifacts").mkdir(parents=True)
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    elsewhere = client.create_experiment("elsewhere", (disk / "mlartifacts/1").as_uri())
    run = client.create_run(elsewhere).info
    bucket = client.create_experiment("bucket", "s3://bucket/mlartifacts")
    (disk / "mlartifacts/1").mkdir()
    ensure_store(root)
    assert client.get_experiment(elsewhere).artifact_location == (disk / "mlartifacts/1").as_uri()
    shutil.rmtree(disk / "mlartifacts")
    ensure_store(root)
    assert client.get_run(run.run_id).info.artifact_uri == run.artifact_uri
    assert client.get_experiment(bucket).artifact_location == "s3://bucket/mlartifacts"


def test_another_path_to_the_same_folder_is_no_move(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    before = places(root)
    ensure_store(link)
    assert places(root) == before
    link.unlink()
    assert texts(root) == ["hello", "weights"]


def test_a_database_without_a_server_has_its_artifacts_at_the_main_root(root: Path, tmp_path: Path) -> None:
    """Not in the working folder, which may be one that DVC deletes; and another machine does not make that folder."""
    database = tmp_path / "shared.db"
    shutil.copy(once("store", ensure_store) / "mlflow.db", database)

    client = MlflowClient(f"sqlite:///{database}")
    delivery = Delivery(client, "postgresql://ann@host/runs", root)
    assert client.get_experiment(delivery.experiment("e")).artifact_location == (root / "mlartifacts").as_uri()
    shutil.rmtree(root)
    with pytest.raises(NotADirectoryError, match="not on this machine: bring that folder back"):
        Delivery(client, "postgresql://ann@host/runs", tmp_path).experiment("e")
    assert not root.exists()
