"""A folder of results has one owner, and results carry the key of what made them."""

import json
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from project_copy import TINY, clone_project, run_module, start

from pipeline.config.compose import compose, compose_sweep
from pipeline.core import claim
from pipeline.core.errors import BusyError, UserError
from pipeline.core.paths import main_root
from pipeline.sweeps import app, cache, command_line, folders
from pipeline.sweeps.plan import SweepPlan

pytestmark = pytest.mark.xdist_group("ownership")
QUICK = ("framework=pytorch", *TINY, "train.epochs=1", "evaluate.plots=false", "tracking.log_model=false")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_project(tmp_path_factory.mktemp("ownership") / "project")


def settings(folder: Path) -> dict[str, object]:
    asked = yaml.safe_load((folder / "params.yaml").read_text())
    trained = json.loads((folder / "manifest.json").read_text())["settings"]
    assert trained["train"]["clip_norm"] == asked["train"]["clip_norm"]
    assert trained["seeds"] == asked["seeds"]
    return {"clip_norm": trained["train"]["clip_norm"], "seeds": trained["seeds"]}


def test_runs_that_begin_at_one_moment_have_a_folder_each(project: Path) -> None:
    """The name is the year, so that the moment is the same for sure."""
    where = "hydra.run.dir='outputs/at_once_${now:%Y}'"
    processes = [
        start(project, "pipeline.train", *QUICK, f"seeds=[{n}]", f"train.clip_norm={n + 1}", where) for n in range(3)
    ]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    made = [settings(folder) for folder in (project / "outputs").glob("at_once_*")]
    assert sorted(made, key=str) == [{"clip_norm": n + 1.0, "seeds": [n]} for n in range(3)]


def test_sweeps_that_begin_at_one_moment_have_a_folder_each(project: Path) -> None:
    where = "hydra.sweep.dir='multirun/at_once_${now:%Y}'"
    processes = [
        start(project, "pipeline.train", "-m", *QUICK, "seeds=[0]", f"train.clip_norm={n},{n}.5", where)
        for n in (11, 12)
    ]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    made = {path: settings(path) for path in (project / "multirun").glob("at_once_*/?")}
    assert sorted(each["clip_norm"] for each in made.values()) == [11, 11.5, 12, 12.5]  # type: ignore[type-var]
    for folder in made:
        record = json.loads((folder.parent / "sweep.json").read_text())
        assert json.loads((folder / "done.json").read_text())["key"] == record["keys"][int(folder.name)]


def test_a_folder_that_a_user_names_is_that_of_one_configuration(project: Path) -> None:
    where = "hydra.run.dir=outputs/mine"
    assert run_module(project, "pipeline.train", *QUICK, "seeds=[0]", where).returncode == 0
    before = (project / "outputs/mine/summary.json").read_bytes()
    other = run_module(project, "pipeline.train", *QUICK, "seeds=[0]", "train.clip_norm=3", where)
    assert other.returncode == 2
    assert "outputs/mine: has the results of another configuration: train.clip_norm: None and 3.0" in other.stderr
    assert (project / "outputs/mine/summary.json").read_bytes() == before
    again = run_module(project, "pipeline.train", *QUICK, "seeds=[0]", "train.checkpoint_minutes=1", where)
    assert again.returncode == 0, again.stderr
    written = {path.name for path in (project / "outputs/mine").iterdir()}
    assert written - set(folders.WRITTEN) == {"hydra", "app.log"}  # Hydra's own


def test_hydra_s_names_and_settings_of_a_sweep_are_followed(project: Path, tmp_path: Path) -> None:
    """Folders by overrides, parameters from a file of another folder, batches; chance in the order; a sweep resumed."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {train.clip_norm: 'shuffle(21,22,23)'}}}\n"
    )
    arguments = (
        *("-m", *QUICK, f"--config-dir={tmp_path}", "experiment=mine", "seeds=[${hydra:job.num}]"),
        *("hydra.sweeper.max_batch_size=2", "hydra.sweep.dir=multirun/named"),
        "hydra.sweep.subdir=${hydra.job.override_dirname}",
        "hydra.job.config.override_dirname.exclude_keys=[framework,model.layers,train.threads,train.epochs,seeds,"
        "evaluate.plots,tracking.log_model,experiment]",
    )
    done = run_module(project, "pipeline.train", *arguments)
    assert done.returncode == 0, done.stderr
    made = {path.name: settings(path) for path in (project / "multirun/named").glob("train*")}
    assert {name: each["clip_norm"] for name, each in made.items()} == {f"train.clip_norm={n}": n for n in (21, 22, 23)}
    assert sorted(each["seeds"] for each in made.values()) == [[0], [1], [2]]  # type: ignore[type-var]
    refused = run_module(project, "pipeline.train", *arguments, "train.label_smoothing=0.1")
    assert refused.returncode == 2
    assert "multirun/named: has the results of another sweep: train.label_smoothing: 0.0 and 0.1; " in refused.stderr


# In process -----------------------------------------------------------------------------------------


def test_a_new_folder_is_new(tmp_path: Path) -> None:
    made = [claim.create_new(tmp_path / "a/b") for _ in range(3)]
    assert [path.name for path in made] == ["b", "b_1", "b_2"]


def test_a_folder_in_use_is_busy(tmp_path: Path) -> None:
    with ExitStack() as one:
        claim.lock(tmp_path / "a", one)
        with ExitStack() as other, pytest.raises(BusyError, match="another process writes to it"):
            claim.lock(tmp_path / "a", other)
    with ExitStack() as later:
        claim.lock(tmp_path / "a", later)


@pytest.mark.parametrize("name", [".", "..", "conf", "pipeline/new", "results/pytorch", ".git/x", "dvc.yaml", "kept"])
def test_a_folder_of_the_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for path in ("conf/config.yaml", "pipeline/core/paths.py", "dvc.yaml", "kept/by/git.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with pytest.raises(UserError, match=rf"^hydra.run.dir = {name}: .*choose a folder of its own"):
        folders.free("hydra.run.dir", name)
    assert folders.free("hydra.run.dir", "outputs/x") == Path("outputs/x")


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "--output"])
@pytest.mark.parametrize(
    "name", ["file/x", "file/x/y", "/dev/null/x", "dead", "dead/x", "outputs", "multirun/", "/proc/x"]
)
def test_a_folder_that_cannot_be_one_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, key: str
) -> None:
    ours(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dead").symlink_to("missing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with ExitStack() as stack, pytest.raises(UserError, match=rf"^{key} = {Path(name)}: .*; choose "):
        claim.lock(folders.free(key, name), stack, key)
    assert folders.free(key, "multirun/x") == Path("multirun/x")


@pytest.mark.parametrize(("key", "home"), [("hydra.sweep.dir", "multirun"), ("hydra.run.dir", "outputs")])
def test_a_plain_name_lies_beside_the_others_and_a_path_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, home: str
) -> None:
    ours(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in ("lr_study", "a b", "lr,0.1", "...", "数据"):
        assert folders.free(key, name) == Path(home, name)
    for path in ("./lr_study", "multirun/lr_study", "lr_study/", "a/b", str(tmp_path / "x"), "../x"):
        assert folders.free(key, path) == Path(path)
    for name in (".", "..", "conf", "multirun"):  # nobody means a folder of that name in another place
        with pytest.raises(UserError, match=rf"^{key} = {re.escape(name)}: "):
            folders.free(key, name)
    (tmp_path / home).mkdir()
    (tmp_path / home / "taken").touch()
    with pytest.raises(UserError, match=rf"^{key} = {home}/taken: is a file"):
        folders.free(key, "taken")
    for record in ("sweep.json", "params.yaml"):  # results that an earlier version left there go on
        (tmp_path / record.partition(".")[0]).mkdir()
        (tmp_path / record.partition(".")[0] / record).touch()
        assert folders.free(key, record.partition(".")[0]) == Path(record.partition(".")[0])
    assert folders.free("--output", "mine") == Path("mine")


@pytest.mark.parametrize("name", ["a/../../b", "/b", "a" * 241])
def test_a_log_stays_in_the_folder_of_its_run(name: str) -> None:
    with pytest.raises(UserError, match=r"^hydra.job.name = .*: allowed: the name of a file, without /"):
        command_line.require_supported(compose_sweep([f"hydra.job.name={name}"]).hydra)


@pytest.mark.parametrize("file", ["history.csv", "models", "params.yaml"])
def test_files_of_something_else_are_left_alone(tmp_path: Path, file: str) -> None:
    (tmp_path / file).mkdir()
    with ExitStack() as stack, pytest.raises(UserError):
        folders.run_folder(tmp_path, compose(), stack, new=False)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_results_that_are_not_those_of_their_record_are_not_believed(tmp_path: Path) -> None:
    job = tmp_path / "multirun/sweep/0"
    job.mkdir(parents=True)
    (job / "summary.json").write_text("{}")
    cache.mark_done(job, "key", ["sweep"])
    assert cache.FinishedJobs(tmp_path).find(tmp_path / "x", "key") == job
    (job / "summary.json").write_text('{"of": "another"}')
    assert cache.FinishedJobs(tmp_path).find(tmp_path / "x", "key") is None
    assert cache.FinishedJobs(tmp_path).find(job, "key") is None


def test_a_sweep_is_the_same_in_any_order_and_keeps_its_numbers() -> None:
    record = cache.SweepRecord(Path(), "name", ["a", "b", "b"], ["x", "y", "y"])
    assert record.same(["b", "a", "b"], [])
    assert record.same(["new", "code", "came"], ["y", "y", "x"])
    assert not record.same(["a", "b"], ["x", "y"])
    assert record.order(["b", "a", "b"], []) == [1, 0, 2]
    assert record.order(["p", "q", "r"], ["y", "y", "x"]) == [2, 0, 1]


def test_sweeps_that_are_called_alike_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folders.name_of(Path("multirun/lr")) == "lr"
    names = {folders.name_of(Path(folder)) for folder in ("a/lr", "b/lr")}
    assert len(names) == 2
    assert all(name.startswith("lr-") for name in names)


NAMES = ["a b", "a'b", "a\\b", "a\\'b", "a\\", "a\\\\'b", "a${b", 'a\'b,c=d [e]{f} #é "q" $x']


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_reaches_hydra_as_it_is_called(name: str) -> None:
    override = OverridesParser.create().parse_override(app._quoted("key", Path(name)))
    assert OmegaConf.create({"key": override.value()})["key"] == name


def test_jobs_that_would_share_a_folder_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sweeps.plan.PreparedData.check", lambda *_: "key")
    plan = SweepPlan([["train.epochs=1"], ["train.epochs=2"]], ["hydra.sweep.subdir=x"])
    with pytest.raises(UserError, match=r"hydra.sweep.subdir = x: the folder of 2 jobs"):
        plan.jobs()


REFUSED = {
    "-m --cfg job": "--multirun and --cfg: one of them",
    "--resolve": "--resolve: goes with --cfg",
    "--config-path x": "--config-path = x: .*--config-dir",
    "--config-dir nope": "--config-dir = 'nope': is no folder",
    "--experimental-rerun x.pickle": "--experimental-rerun = x.pickle: is a pickle",
    "--shell-completion": "--shell-completion: completes a program",
    "--nope": "unrecognized arguments: --nope",
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.items())
def test_an_option_of_hydra_works_or_is_refused(arguments: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        command_line.CommandLine.parse(arguments.split())


# Which repository is meant --------------------------------------------------------------------------


def ours(folder: Path) -> Path:
    for name in ("conf/config.yaml", "pipeline/core/paths.py"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    return folder


def test_a_foreign_project_above_keeps_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".dvc").mkdir()
    main = ours(tmp_path / "vendor/ours")
    (main / "docs").mkdir()
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for folder in (main, main / "docs"):
        monkeypatch.chdir(folder)
        assert main_root() == main
    for place in ("tmpabc", "standalone/tmpabc"):  # DVC's copies of the foreign repository, with ours inside
        copy = ours(tmp_path / ".dvc/tmp/exps" / place / "vendor/ours")
        monkeypatch.chdir(copy)
        assert main_root() == main
    nested = ours(main / ".dvc/tmp/exps/tmpabc")
    monkeypatch.chdir(nested)
    assert main_root() == main
