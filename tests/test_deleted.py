"""What is deleted in MLflow while the pipeline still needs it is sent to a new run, and nothing is lost."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from project_copy import once
from test_journal import COUNTS, log_everything, model_of, synchronise

from pipeline.config.compose import compose
from pipeline.core.errors import UserError
from pipeline.sweeps import resend
from pipeline.tracking.journal import folder_of
from pipeline.tracking.references import RunReferences, SeedReference
from pipeline.tracking.store import ensure_store
from pipeline.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A main root with a store: MLflow takes seconds to open each."""
    root = tmp_path_factory.mktemp("deleted")
    shutil.copy(once("store", ensure_store) / "mlflow.db", root)
    return root


@pytest.fixture
def root(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return store


@pytest.fixture
def tracker(root: Path, request: pytest.FixtureRequest) -> Tracker:
    return tracker_of(root, request.node.name)


def tracker_of(root: Path, experiment: str) -> Tracker:
    return Tracker(compose().tracking.model_copy(update={"experiment": experiment}), root)


def deleted(tracker: Tracker, run_id: str) -> None:
    tracker.client.delete_run(run_id)


def gone_for_good(tracker: Tracker, run_id: str) -> None:
    """As `mlflow gc` leaves it."""
    tracker.client.delete_run(run_id)
    tracker.client._tracking_client.store._hard_delete_run(run_id)


DELETIONS = pytest.mark.parametrize("delete", [deleted, gone_for_good])


def runs_of(tracker: Tracker, name: str) -> list[Any]:
    found = tracker.client.search_runs([tracker.experiment_id], f"attributes.run_name = '{name}'")
    return list(found)


def points_of(tracker: Tracker, run: Any) -> dict[str, int]:
    return {name: len(tracker.client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics}


@DELETIONS
@pytest.mark.parametrize("resumed", [True, False], ids=["before it goes on", "while it runs"])
def test_a_deleted_run_goes_on_in_a_new_one_with_all_of_it(
    root: Path,
    tracker: Tracker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    delete: Callable[[Tracker, str], None],
    resumed: bool,
) -> None:
    link, late = tmp_path / "run", {"late": 1.0}
    if resumed:
        with contextlib.suppress(KeyboardInterrupt), tracker.run("r", tags={}, run_link=link) as run:
            log_everything(run, root)
            model_of(run, "m")
            raise KeyboardInterrupt
        assert tracker.drain()
        capsys.readouterr()  # on a slow machine, an interrupted run does not wait for MLflow
        first = tracker.reference(link)
        tracker.close()
        delete(tracker, first)
        tracker = tracker_of(root, tracker._name)
        with tracker.run("r", tags={}, run_link=link) as run:
            run.log_metrics(late, step=2)
    else:
        with tracker.run("r", tags={}, run_link=link) as run:
            log_everything(run, root)
            model_of(run, "m")
            assert tracker.drain()
            first = run.reference
            delete(tracker, first)
            run.log_metrics(late, step=2)
    (found,) = runs_of(tracker, "r")
    assert found.info.run_id != first
    assert found.info.run_id == tracker.reference(link)
    assert found.info.status == "FINISHED"
    assert points_of(tracker, found) == COUNTS | {"late": 1}
    assert found.data.params == {"train.epochs": "3", "model.name": "x"}
    assert found.data.tags["mlflow.note.content"] == f"see [it](x/{found.info.run_id}/y)"
    assert [model.name for model in (tracker.client.get_logged_model(m.model_id) for m in found.outputs.model_outputs)]
    assert sorted(item.path for item in tracker.client.list_artifacts(found.info.run_id)) == ["files", "hello.txt"]
    said = capsys.readouterr().err
    assert (
        said.count(f"MLflow run r ({first}): is deleted, or no longer in the store; what was logged goes to a new run")
        == 1
    )
    assert "refused" not in said
    assert "wait" not in said
    uid = run.journal.uid
    tracker.release(link)
    assert folder_of(root, uid) is None


def test_a_seed_that_had_ended_before_its_training_was_interrupted_is_brought_back(
    root: Path, tracker: Tracker, tmp_path: Path
) -> None:
    link = tmp_path / "run"
    with tracker.run("ended", tags={}, run_link=link) as run:
        log_everything(run, root)
    tracker.close()
    again = tracker_of(root, tracker._name)
    again.restore(link)  # it is there
    again.restore(tmp_path / "nothing")
    assert again.reference(link) == run.reference
    deleted(again, run.reference)
    again.restore(link)
    assert again.drain()
    (found,) = runs_of(again, "ended")
    assert found.info.run_id == again.reference(link) != run.reference
    assert points_of(again, found) == {name: count for name, count in COUNTS.items() if name != "of_model"}
    again.release(link)
    assert folder_of(root, run.journal.uid) is None


@DELETIONS
def test_children_go_with_a_parent_that_is_deleted(
    root: Path, tracker: Tracker, delete: Callable[[Tracker, str], None]
) -> None:
    """As the seeds with a group, the jobs with a sweep: each job is a process that was told its parent's id."""
    with tracker.run("parent", tags={}) as parent:
        assert tracker.drain()
        told = parent.reference
        with tracker.run("before", tags={}, parent=told):
            pass
        delete(tracker, told)
        with tracker.run("meanwhile", tags={}, parent=told):
            pass
        parent.log_metrics({"loss": 1.0}, step=0)
        assert tracker.drain()
        with tracker_of(root, tracker._name).run("after", tags={}, parent=told):
            pass
    (found,) = runs_of(tracker, "parent")
    assert found.info.run_id != told
    for name in ("before", "meanwhile", "after"):
        (child,) = runs_of(tracker, name)
        assert child.data.tags["mlflow.parentRunId"] == found.info.run_id, name


@DELETIONS
def test_results_of_a_deleted_run_get_one_of_their_own(
    tracker: Tracker, delete: Callable[[Tracker, str], None]
) -> None:
    with tracker.run("trained", tags={}) as run:
        run.log_metrics({"loss": 1.0}, step=0)
    delete(tracker, run.reference)
    tracker.add_results(run.reference, {"test/accuracy": 0.5}, name="restored", tags={"stage": "evaluate"})
    tracker.add_tags(run.reference, {"of": "nobody"})
    assert tracker.drain()
    assert not runs_of(tracker, "trained")
    (found,) = runs_of(tracker, "restored")
    assert found.data.metrics == {"test/accuracy": 0.5}
    assert found.data.tags["origin.run"] == run.reference


def test_nothing_of_a_deleted_experiment_is_lost(
    root: Path, tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracker.run("r", tags={}) as run:
        log_everything(run, root)
        assert tracker.drain()
        tracker.client.delete_experiment(tracker.experiment_id)
        run.log_metrics({"late": 1.0}, step=2)
    with tracker.run("later", tags={}) as run:
        run.log_metrics({"late": 1.0}, step=2)
    said = capsys.readouterr().err
    assert f"the experiment {tracker._name} is deleted; restore it" in said
    assert "2 journals wait" in said
    assert "refused" not in said
    tracker.close()
    with pytest.raises(UserError, match=f"tracking.experiment = {tracker._name}: is deleted"):
        tracker_of(root, tracker._name)
    assert synchronise() == 1
    assert "is deleted; restore it" in capsys.readouterr().err
    tracker.client.restore_experiment(tracker.experiment_id)
    assert synchronise() == 0
    for name, points in {"r": COUNTS | {"late": 1}, "later": {"late": 1}}.items():
        found = runs_of(tracker, name)[0]
        points.pop("of_model", None)
        assert points_of(tracker, found) == points
        assert found.info.status == "FINISHED"
    assert folder_of(root, run.journal.uid) is None


def test_the_runs_of_finished_jobs_are_asked_for_together(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished(name: str, seed: int) -> Path:
        with tracker.run(name, tags={}) as run:
            assert tracker.drain()
        references = RunReferences(group=None, seeds={seed: SeedReference(run=run.reference, model=None)})
        references.write(tmp_path / name / "runs.json")
        return tmp_path / name

    folders = [finished(str(number), number) for number in range(4)]
    runs = [RunReferences.read(folder / "runs.json").runs[0] for folder in folders]
    tracker.client.delete_run(runs[1])
    tracker.client.set_terminated(runs[2], "FAILED")
    monkeypatch.setattr(resend, "_ASKED_AT_ONCE", 3)
    assert resend.present(tracker, folders) == {runs[0], runs[3]}
    asked = []
    monkeypatch.setattr(resend, "has_run", lambda _, run: asked.append(run) or run == runs[2])
    job: Any = SimpleNamespace(key="none", config=SimpleNamespace(seeds=[1]))
    known = resend.present(tracker, folders)
    given = [resend.references_of(tracker, folder, job, known) for folder in folders]
    assert given == [[runs[0]], [], [runs[2]], [runs[3]]], "what is not found together is asked for alone"
    assert asked == [runs[1], runs[2]]
