"""Names that users choose find what they name in MLflow, and nothing else."""

import base64
import json
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from project_copy import once
from test_journal import model_of

from pipeline.comparison.from_mlflow import SweepArms
from pipeline.config.compose import compose
from pipeline.core.errors import UserError
from pipeline.tracking.flavours import model_name
from pipeline.tracking.store import ensure_store
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.views import TAG, in_sweep, leaderboards, sweep_key, sweep_tags
from pipeline.training.spec import RunSpec

NAMES = (
    *("a", "ab", "a b", "b", "A", "a_", "a%", "%", "_", "a'", 'a"', "a'\"b", "a`b", "a\\", "\\'", "a' OR 'b"),
    *(
        "a -- b",
        "a;b",
        "a,b",
        "(a)",
        "ä",
        "a\u0308",
        "数据",
        "🙂",
        "a\tb",
        "a\nb",
        "x" * 200,
        "tags.a = 'b'",
        "sweep-a",
    ),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A main root with a store."""
    root = tmp_path_factory.mktemp("names")
    shutil.copy(once("store", ensure_store) / "mlflow.db", root)
    return root


def tracker_of(root: Path, experiment: str) -> Tracker:
    return Tracker(compose().tracking.model_copy(update={"experiment": experiment}), root)


@pytest.fixture(autouse=True)
def at_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_sweep_of_any_name_has_its_runs_and_its_view(root: Path) -> None:
    tracker = tracker_of(root, "sweeps")
    shown = {"stage": "train", "leaderboard": "true", "framework": "pytorch", "seed": "0"}
    for name in NAMES:
        with tracker.run(f"sweep {name}", tags={"stage": "sweep", **sweep_tags([name])}) as run:
            run.show(sweeps={name: []})
        with tracker.run(f"of {name}", tags=shown | sweep_tags([name])):
            pass
    with tracker.run("of several", tags=shown | sweep_tags(NAMES)):
        pass
    client, experiment = tracker.client, tracker.experiment_id
    saved = client.get_experiment(experiment).tags
    for name in NAMES:
        view = json.loads(saved[TAG + sweep_key(name)])
        assert view["name"] == f"Sweep {name}"
        state = json.loads(zlib.decompress(base64.b64decode(view["state"].partition(";")[2])))
        found = {run.info.run_name for run in client.search_runs([experiment], state["searchFilter"])}
        assert found == {f"of {name}", "of several"}, name
        assert len(client.search_runs([experiment], in_sweep(name))) == 3
        with pytest.raises(UserError, match="no configuration that two frameworks were trained under"):
            SweepArms(tracker, name)  # its runs are found
    with tracker.run("tagged by hand", tags=shown | {"sweep": "c_"}):
        pass
    with pytest.raises(UserError, match="no configuration that two frameworks were trained under"):
        SweepArms(tracker, "c_")
    for name in ("c", "cc", "a'b", "a' OR tags.seed = '0"):
        with pytest.raises(UserError, match="no finished runs of it"):
            SweepArms(tracker, name)


def test_a_run_s_name_holds_what_is_not_as_shipped() -> None:
    def named(*overrides: str, data: str = "mnist_sample") -> str:
        config = compose(["framework=pytorch", *overrides])
        return RunSpec.of(config, dataset=cast(Any, SimpleNamespace(name=data)), output=Path()).label

    assert named() == "pytorch"
    assert named("train.optimizer.learning_rate=3e-4") == "pytorch lr=0.0003"
    assert named("model=lenet5", data="mnist") == "pytorch mnist lenet5"


def test_each_data_set_has_a_leaderboard_of_its_own(root: Path) -> None:
    tracker = tracker_of(root, "data sets")
    shown = {"stage": "train", "leaderboard": True, "framework": "pytorch", "seed": "0"}
    for name, data, fingerprint in (("one", "mnist", "a" * 64), ("two", 'it\'s "new"', "b" * 64)):
        with tracker.run(name, tags=shown | {"data": data, "data.fingerprint": fingerprint}):
            pass
    aside = {"stage": "train", "seed": "0", "data": "mnist", "data.fingerprint": "a" * 64}
    with tracker.run("a seed", tags=aside):
        pass
    client, experiment = tracker.client, tracker.experiment_id
    saved = client.get_experiment(experiment).tags
    pages = leaderboards(experiment, saved)
    assert list(pages) == ["Leaderboard of mnist (aaaaaaaa)", 'Leaderboard of it\'s "new" (bbbbbbbb)']

    def found(key: str) -> set[str]:
        state = json.loads(zlib.decompress(base64.b64decode(json.loads(saved[TAG + key])["state"].partition(";")[2])))
        return {run.info.run_name for run in client.search_runs([experiment], state["searchFilter"])}

    assert found("leaderboard-" + "a" * 12) == {"one"}
    assert found("leaderboard-" + "b" * 12) == found("leaderboard") == found("runs") == {"two"}
    with tracker.run("three", tags=shown | {"data": "mnist", "data.fingerprint": "a" * 64}):
        pass
    saved = tracker.client.get_experiment(experiment).tags
    assert found("leaderboard") == {"one", "three"}
    assert found("runs") == {"one", "three", "a seed"}


@pytest.mark.parametrize("name", ["it's", 'a "b" %', "a\\", "数据 `x`", "a_b", "aXb", "-- ;"])
def test_an_experiment_of_any_name_is_found_again(root: Path, name: str) -> None:
    first, again = tracker_of(root, name), tracker_of(root, name)
    assert first.experiment_id == again.experiment_id
    with first.run("r", tags={"of": name}):
        pass
    (run,) = first.client.search_runs([first.experiment_id])
    assert run.data.tags["of"] == name


def test_models_whose_names_are_alike_are_sent_once_each(root: Path) -> None:
    tracker, networks = tracker_of(root, "models"), ["aXb", "a_b", "v1.2"]
    names = [model_name("pytorch", network, 0) for network in networks]
    with tracker.run("r", tags={}) as run:
        for name in names:
            model_of(run, name)
    found = tracker.client.search_logged_models([tracker.experiment_id])
    assert sorted(model.name for model in found) == names
