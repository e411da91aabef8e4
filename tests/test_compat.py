"""What libraries do not document, and this project uses: each piece against the real library.

A test that fails after a new version of a library names in its docstring the function to look at and what that must
give. Nothing else of the project knows the difference (the last tests here hold that).
"""

import ast
import base64
import contextlib
import hashlib
import importlib.util
import io
import json
import re
import sqlite3
import tarfile
import time
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from libraries import library
from servers import answering, gate, nobody

from pipeline.config import hydra_compat
from pipeline.config.compose import CONF
from pipeline.core import frameworks
from pipeline.core.errors import UserError
from pipeline.data.downloader import Upstream
from pipeline.data.providers import tfds_compat, torchvision_compat
from pipeline.data.providers.bundled_provider import FILES, SAMPLE
from pipeline.tracking import mlflow_compat, views

PACKAGE = Path(__file__).parents[1] / "pipeline"
COMPAT = sorted(PACKAGE.rglob("*_compat.py"))

# MLflow -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store of the MLflow that is installed."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow_compat.build_store(path, (path.parent / "artifacts").as_uri())
    return path


@pytest.fixture(scope="module")
def client(store: Path) -> Any:
    """MLflow's documented client of that store."""
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{store}")


def test_a_server_is_asked_as_the_client_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `MlflowClient` does before each request: `ask_server`. It gives status and text, whatever the status."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    seen: list[tuple[str, dict[str, str]]] = []
    with answering(b"HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\nhi") as behind, gate(behind, seen=seen) as url:
        assert mlflow_compat.ask_server(url, "/api", 5) == (503, "hi")
    ((path, headers),) = seen  # once
    assert (path, headers["Authorization"]) == ("/api?max_results=1", "Bearer t")
    with pytest.raises(ConnectionError, match="refused"):
        mlflow_compat.ask_server(nobody(), "/api", 5)
    with pytest.raises(ValueError, match="not a valid host"):
        mlflow_compat.ask_server("http://[", "/api", 5)


@pytest.fixture
def run_id(client: Any) -> str:
    """Of an open run."""
    return str(client.create_run("0").info.run_id)


def test_a_store_that_is_built_is_one_to_mlflow(store: Path, client: Any) -> None:
    """Else see `mlflow_compat.build_store`: it must leave a closed SQLite file that `MlflowClient` takes as it is.

    Whatever builds the tables of `mlflow server --backend-store-uri sqlite:///...` does; `artifact_root` is what
    `--default-artifact-root` is there: the experiment that MLflow makes by itself keeps its artifacts below it.
    """
    assert not list(store.parent.glob("mlflow.db-*")), "build_store must close the database: it is renamed afterwards"
    assert client.get_experiment("0").artifact_location.startswith(f"{store.parent.as_uri()}/artifacts/")


def test_the_head_of_the_schema_is_that_of_a_store_that_is_built(store: Path) -> None:
    """Else see `mlflow_compat.schema_head`: it must give `alembic_version.version_num` of a fresh store.

    It reads MLflow's migrations: where do they live, and how do they say `revision` and `down_revision`?
    """
    with contextlib.closing(sqlite3.connect(store)) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert mlflow_compat.schema_head() == found


def test_a_run_gets_the_tags_that_mlflow_gives_to_its_own() -> None:
    """Else see `mlflow_compat.add_context_tags`: it must give the tags of `mlflow.start_run`, and ours before these."""
    tags = mlflow_compat.add_context_tags({"own": "kept", "mlflow.user": "ours"})
    assert tags.items() >= {"own": "kept", "mlflow.user": "ours"}.items()
    assert tags.keys() >= {"mlflow.source.name", "mlflow.source.type"}


def test_a_run_tells_the_steps_of_its_latest_points(client: Any, run_id: str) -> None:
    """Else see `mlflow_compat.latest_points`: `run.data.metrics`, which is documented, leaves out the steps.

    `MlflowClient.get_metric_history` gives them as well, with a request for each name.
    """
    for step, value in enumerate((0.25, 0.5)):
        client.log_metric(run_id, "loss", value, step=step)
    client.log_metric(run_id, "accuracy", 1.0, step=7)
    assert mlflow_compat.latest_points(client.get_run(run_id)) == {("loss", 1, 0.5), ("accuracy", 7, 1.0)}


def test_the_data_of_a_run_are_among_its_inputs(client: Any, run_id: str) -> None:
    """Else see `mlflow_compat.dataset_input`: it must give an `mlflow.entities.DatasetInput`.

    What `mlflow.log_input` hands to `MlflowClient.log_inputs` is the pattern.
    """
    digest = "0123456789abcdef0123456789abcdef0123"
    client.log_inputs(run_id, [mlflow_compat.dataset_input("mnist", digest, {"mirror": "none"}, "training")])
    (found,) = client.get_run(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("mnist", digest)
    assert json.loads(found.dataset.source)["tags"] == {"mirror": "none"}
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}


def test_a_model_that_was_saved_before_its_run_is_that_run_s(client: Any, run_id: str, tmp_path: Path) -> None:
    """Else see `mlflow_compat.assign_model`: `MLmodel` must name the LoggedModel, its run and where it lies.

    `mlflow.pytorch.log_model` in a run is the pattern: compare the `MLmodel` that it leaves.
    """
    from mlflow.models import Model

    Model().save(str(tmp_path / "MLmodel"))
    model = client.create_logged_model("0", "network", run_id)
    mlflow_compat.assign_model(tmp_path, model, run_id)
    stored = Model.load(str(tmp_path))
    assert (stored.model_id, stored.run_id) == (model.model_id, run_id)
    assert stored.artifact_path == model.artifact_location


def test_a_model_s_page_says_who_made_it_and_from_what(client: Any, run_id: str) -> None:
    """Else see `mlflow_compat.model_tags`: look at a model's page, "Created by" and "Logged from"."""
    client.set_tag(run_id, "mlflow.user", "ada")
    client.set_tag(run_id, "mlflow.source.name", "pipeline.train")
    found = mlflow_compat.model_tags(client.get_run(run_id), {"mlflow.note.content": "it", "mlflow.user": "bob"})
    assert found["mlflow.source.name"] == "pipeline.train"
    assert (found["mlflow.user"], found["mlflow.note.content"]) == ("bob", "it")


def test_system_metrics_are_sampled_beside_a_run(tmp_path: Path) -> None:
    """Else see `mlflow_compat.sampled_system_metrics`: it must log every so many seconds, and nothing afterwards.

    It takes from MLflow's monitor what measures alone; psutil and nvidia-ml-py, which that stands on, would do.
    """
    points: list[tuple[int, dict[str, float]]] = []
    with mlflow_compat.sampled_system_metrics(lambda v, step: points.append((step, dict(v))), 0.1, first_step=7):
        until = time.monotonic() + 30
        while len(points) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    count = len(points)
    assert [step for step, _ in points[:2]] == [7, 8]
    for _, values in points:
        assert values.keys() >= {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
        assert all(name.startswith("system/") for name in values)
    time.sleep(0.3)
    assert len(points) == count, "sampled_system_metrics must end its thread with its context"


@cache
def ui_sources() -> str:
    """The program of MLflow's UI, as it comes with the package."""
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    folder = Path(spec.submodule_search_locations[0]) / "server/js/build"
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*.js"))


def keys_of(value: Any) -> set[str]:
    """The names of all members, at any depth, but for those of widths by column."""
    if isinstance(value, dict):
        inner = (keys_of(member) for name, member in value.items() if name != "columnWidths")
        return set(value).union(*inner)
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_a_saved_view_is_written_as_the_ui_reads_it() -> None:
    """Else see `mlflow_compat.pack_view` and `VIEW_TAG`, and for the keys of the state `tracking.views`.

    Save a view in the new UI ("Share", with a look at the tags of the experiment), and write what it writes.
    tests/test_browser.py shows what the UI makes of ours.
    """
    assert json.loads(mlflow_compat.pack_view("a name", {})).keys() == {"name", "createdAt", "updatedAt", "state"}
    assert mlflow_compat.view_title(mlflow_compat.pack_view("a name", {})) == "a name"
    sources, words = ui_sources(), {mlflow_compat.VIEW_TAG, "deflate;"}
    for tag, value in views.views(["a"], {"s": ["train.epochs"]}).items():
        assert tag.startswith(mlflow_compat.VIEW_TAG)
        view = json.loads(value)
        kind, _, packed = view["state"].partition(";")
        assert kind == "deflate"
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        words |= view.keys() | keys_of(state) | {state.get("runsHiddenMode", "SHOW_ALL")}
    unknown = sorted(word for word in words if word.rstrip(".") not in sources)
    assert not unknown, f"MLflow's UI knows none of {unknown}: what are these called now? See tracking/views.py"


def test_a_link_into_the_ui_is_of_words_that_it_knows() -> None:
    """Else see `mlflow_compat.ui_path`: open the pages of `make ui`, and take what the address line shows."""
    paths = [
        mlflow_compat.ui_path("1", "runs", view="a b/c", charts=True),
        mlflow_compat.ui_path("1", "models", charts=True),
    ]
    assert paths[0].startswith("/#/experiments/1/runs?")
    assert "&viewStateShareKey=a%20b%2Fc&" in paths[0]
    words = {word for path in paths for pair in path.partition("?")[2].split("&") for word in pair.split("=")}
    unknown = sorted(word for word in words - {"a%20b%2Fc"} if word not in ui_sources())
    assert not unknown, f"MLflow's UI knows none of {unknown} of its own addresses"


@pytest.mark.parametrize("module", mlflow_compat.WARM_IMPORTS)
def test_what_a_warm_worker_imports_of_mlflow_is_there(module: str) -> None:
    """Else see `mlflow_compat.WARM_IMPORTS`: take the module's new name, or leave it out where no run imports it."""
    assert importlib.util.find_spec(module)


# Hydra --------------------------------------------------------------------------------------------


def test_a_sweep_is_expanded_as_hydra_does() -> None:
    """Else see `hydra_compat.expand`: it must give a list of overrides for each job, in the order of `--multirun`.

    `BasicSweeper` is the sweeper that Hydra takes where conf/ names none: see how its own `launch` comes by its jobs.
    """
    from hydra.errors import HydraException

    with hydra_compat.started(CONF, hydra_compat.Source()) as hydra:
        assert hydra_compat.expand(hydra, ["a.b=1,2", "c='x,y'", "d=range(0,2)", "+e=1"]) == [
            [f"a.b={a}", "c='x,y'", f"d={d}", "+e=1"] for a in (1, 2) for d in (0, 1)
        ]
        assert hydra_compat.expand(hydra, []) == [[]]
        assert hydra_compat.expand(hydra, ["train/schedule=glob(c*)"]) == [
            ["train/schedule=constant"],
            ["train/schedule=cosine"],
        ]
        for bad in ("a=[", "a=interval(1,2)", "model=glob(nope*)"):
            with pytest.raises(HydraException):
                hydra_compat.expand(hydra, [bad])


@pytest.fixture(scope="module", autouse=True)
def _hydra_has_looked_for_plugins() -> None:
    """Hydra runs their modules again when it does, whichever test comes first."""
    from hydra.core.plugins import Plugins

    hydra_compat.find_plugins()
    Plugins.instance()


def test_hydra_hands_out_the_jobs_that_it_is_given() -> None:
    """Else see `hydra_compat.handing_out`: find what `BasicSweeper.sweep` calls for the batches of its jobs."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    before = BasicSweeper.split_arguments
    jobs = [["a=1"], ["a=2"], ["a=3"]]
    with hydra_compat.handing_out(jobs):
        assert BasicSweeper.split_arguments([], None) == [jobs]
        assert BasicSweeper.split_arguments([], 2) == [jobs[:2], jobs[2:]]
    assert BasicSweeper.split_arguments is before


def test_hydra_leaves_out_the_jobs_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else see `hydra_compat.handing_out`: what does `BasicSweeper.sweep` do before, and `BasicLauncher` with each?

    The sweeper must not compose all jobs before the first is launched, and numbers must stay those of the whole sweep.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text("a: 0\nhydra: {sweep: {dir: out}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["x", "-m", "a=range(7)"])
    seen: list[tuple[int, int]] = []

    def task(composed: Any) -> None:
        seen.append((HydraConfig.get().job.num, composed.a))

    jobs = [[f"a={10 * number}"] for number in range(7)]
    with hydra_compat.aside(), hydra_compat.handing_out(jobs, {0, 3, 4}.__contains__):
        hydra.main(version_base="1.3", config_path=str(tmp_path / "conf"), config_name="config")(task)()
    assert seen == [(1, 10), (2, 20), (5, 50), (6, 60)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["1", "2", "5", "6"]


def test_another_launcher_gets_no_batch_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else see `hydra_compat.handing_out`. It gets every other batch as a whole, as it runs several jobs at a time."""
    from hydra.utils import get_class

    name = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    launched: list[tuple[list[list[str]], int]] = []
    launcher: Any = get_class(name)
    monkeypatch.setattr(launcher, "launch", lambda _, jobs, first: launched.append((jobs, first)) or [])
    before, jobs = launcher.launch, [["a=0"], ["a=1"], ["a=2"]]
    with hydra_compat.handing_out(jobs, {0, 2, 3}.__contains__, name):
        each = launcher.__new__(launcher)
        each.launch(jobs, 0)
        each.launch(jobs[:2], 2)
    assert launched == [(jobs, 0)]
    assert launcher.launch is before


def test_hydra_lists_no_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """Else see `hydra_compat.list_no_jobs`: find the logger by which the basic launcher lists its jobs."""
    from hydra._internal.core_plugins import basic_launcher

    before = basic_launcher.log.level
    try:
        hydra_compat.list_no_jobs()
        basic_launcher.log.info("#0 : a=1")
        basic_launcher.log.warning("something else")
    finally:
        basic_launcher.log.setLevel(before)
    assert [record.message for record in caplog.records] == ["something else"]


def test_an_override_is_read_as_hydra_does() -> None:
    """Else see `parsed`, `is_group`, `names_of_jobs` and `override_dirname` of `hydra_compat`.

    tests/test_composer.py compares whatever is made of them with what Hydra composes. `defaults_list.Overrides` tells
    a group from a key, `config_loader_impl.get_overrides_dirname` builds the name.
    """
    read = [hydra_compat.parsed(text) for text in ("a.b='c,d'", "++a=1", "+a=1", "~a", "a@b=1", "hydra.verbose=true")]
    assert [each.sets for each in read] == [True, True, False, False, False, True]
    assert [each.of_hydra for each in read] == [False] * 5 + [True]
    assert (read[0].key, read[0].value, read[0].text) == ("a.b", "c,d", "a.b='c,d'")
    source = hydra_compat.Source()
    with hydra_compat.started(CONF, source) as hydra:
        assert [hydra_compat.is_group(hydra, key) for key in ("model", "train/optimizer", "seeds")] == [
            True,
            True,
            False,
        ]
        composed = hydra_compat.compose(hydra, source, ["hydra.job.config.override_dirname.exclude_keys=[a.b]"])
    subdir, config, path = hydra_compat.names_of_jobs(composed)
    assert (subdir, path) == ("${hydra.job.num}", [])
    assert hydra_compat.override_dirname(read, config) == "++a=1,+a=1,a@b=1,~a"


def test_the_space_of_a_search_is_read_as_hydra_does() -> None:
    """Else see `hydra_compat.spaces`: `Override` has the values of a choice, and the ends of ranges and intervals."""
    given = ["a=1,2", "b=3", "model=glob(le*)", "c=range(1,6,2)", "d=tag(log,interval(1,2))", "e=int(interval(1,2))"]
    with hydra_compat.started(CONF, hydra_compat.Source()) as hydra:
        fixed, (a, model, c, d, e) = hydra_compat.spaces(hydra, given)
    assert fixed == ["b=3"]
    assert (a.text, a.key, a.choices) == ("a=1,2", "a", ("1", "2"))
    assert model.choices == ("lenet5",)
    assert c.values == (1, 3, 5)
    assert (d.low, d.high, d.tags) == (1.0, 2.0, {"log"})
    assert (type(d.low), type(e.low)) == (float, int)


def test_hydra_has_the_sweeper_of_this_project(tmp_path: Path) -> None:
    """Else see `hydra_compat.find_plugins` and `searching`: Hydra scans `hydra_plugins` once, and takes classes there.

    `Plugins.instance().discover(Sweeper)` must have the class that `searching` gives `open_jobs` to.
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.sweeper import Sweeper
    from omegaconf import OmegaConf

    hydra_compat.find_plugins()
    source = hydra_compat.Source()
    with hydra_compat.started(CONF, source) as hydra:
        shared = hydra_compat.compose_sweep(hydra, source, ["hydra/sweeper=search", f"hydra.sweep.dir={tmp_path}"])
    (sweeper,) = (each for each in Plugins.instance().discover(Sweeper) if each.__name__ == "SearchSweeper")
    launched: list[tuple[list[list[str]], int]] = []

    class Launcher:
        def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[Any]:
            launched.append((jobs, initial_job_idx))
            return []

    rounds = iter([[("0", ["a=1"]), ("1", ["a=1"])], [("1", ["a=1"]), ("x/y", [])], [("x/y", [])]])
    with hydra_compat.searching(lambda folder: next(rounds) if folder == tmp_path else []):
        each = sweeper()
        each.config, each.launcher = OmegaConf.create({"hydra": shared.hydra}), Launcher()
        assert each.sweep([]) == []
    assert launched == [
        ([["a=1", "hydra.sweep.subdir=0"], ["a=1", "hydra.sweep.subdir=1"]], 0),
        ([["hydra.sweep.subdir=x/y"]], 2),
    ]
    assert not hasattr(sweeper, "open_jobs")


def test_a_job_is_composed_with_hydra_s_own_settings(tmp_path: Path) -> None:
    """Else see `started`, `compose`, `compose_sweep`, `resolving` and `split` of `hydra_compat`.

    They do what `hydra.main` does: compare with `Hydra.multirun` and with `BasicLauncher.launch`.
    """
    from omegaconf import OmegaConf

    (tmp_path / "other.yaml").write_text("defaults: [config, _self_]\ntracking: {experiment: '${hydra:job.num}'}\n")
    source = hydra_compat.Source("other", tmp_path)
    overrides = ["train.epochs=3", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    with hydra_compat.started(CONF, source) as hydra:
        assert hydra_compat.split(overrides) == (overrides[:1], overrides[1:])
        job = hydra_compat.compose(hydra, source, overrides, number=7)
        shared = hydra_compat.compose_sweep(hydra, source, ["train.epochs=3,4", "hydra.mode=MULTIRUN"])
    with hydra_compat.resolving(job):
        assert job.tracking.experiment == 7
        assert OmegaConf.select(job, "hydra.sweep.subdir") == "train.epochs=3"
    assert str(shared.hydra.mode).endswith("MULTIRUN")


def test_the_options_of_hydra_are_known() -> None:
    """Else see `hydra_compat.argument_parser`, and how `command_line` reads what it gives."""
    given = vars(hydra_compat.argument_parser().parse_intermixed_args(["a=1", "-m", "b=2", "-cn", "x"]))
    assert given["overrides"] == ["a=1", "b=2"]
    assert given["multirun"]
    assert given["config_name"] == "x"
    known = {"config_path", "experimental_rerun", "run", "cfg", "info", "hydra_help", "shell_completion", "resolve"}
    assert known | {"package", "config_dir"} <= set(given)


def test_a_value_is_read_as_hydra_does() -> None:
    """Else see `hydra_compat.value_of`: it must give the value that `compose` would, and None for what it refuses."""
    assert hydra_compat.value_of("a.b='c,d'") == "c,d"
    assert hydra_compat.value_of("a.b=it's") is None


def test_a_configuration_is_composed_while_hydra_runs(tmp_path: Path) -> None:
    """Else see `hydra_compat.aside`: inside of it Hydra must not know that it is running; afterwards it must again.

    Without it, `hydra.initialize_config_dir` raises in a job of a sweep: "GlobalHydra is already initialized".
    """
    from hydra import compose, initialize_config_dir

    (tmp_path / "config.yaml").write_text("running: true\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        with hydra_compat.aside(), initialize_config_dir(str(CONF), version_base="1.3"):
            assert "train" in compose("config")
        assert compose("config") == {"running": True}


# tensorflow-datasets and torchvision: each in a process of its own ---------------------------------

in_a_process_of_its_own = pytest.mark.xdist_group("libraries")


def remotely(provider: str, check: str, folder: Path) -> None:
    """Call a function of this module with `folder` where that library is."""
    library(provider).do(f"import test_compat, pathlib; test_compat.{check}(pathlib.Path(folder))", folder=str(folder))


def archive(path: Path, **members: bytes) -> str:
    """A tar of these files; its SHA-256."""
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def upstream_of(folder: Path) -> Upstream:
    """With `folder/mirror` in place of the network."""
    for name in ("raw", "mirror"):
        (folder / name).mkdir()
    return Upstream(folder / "raw", mirror=str(folder / "mirror"))


def fetch_with_tfds(folder: Path) -> None:
    """Fetch and unpack an archive, and ask for one that is not there."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, extractor
    from tensorflow_datasets.core.download.checksums import UrlInfo

    tfds.disable_progress_bar()
    upstream, urls = upstream_of(folder), ["http://127.0.0.1:9/a.tar.gz", "http://127.0.0.1:9/b.tar.gz"]
    path = folder / "mirror/kept.tar.gz"
    checksum = archive(path, a=b"whole")
    infos = {urls[0]: UrlInfo(path.stat().st_size, checksum, path.name), urls[1]: UrlInfo(9, "0" * 64, "b.tar.gz")}
    manager = tfds.download.DownloadManager(
        download_dir=folder / "down", extract_dir=folder / "out", url_infos=infos, force_checksums_validation=True
    )
    before = download_manager.get_downloader, extractor.get_extractor
    with tfds_compat.fetching_through(upstream, manager):
        assert (manager.download_and_extract(urls[0]) / "a").read_bytes() == b"whole"
    with pytest.raises(UserError, match=r"b\.tar\.gz"), tfds_compat.fetching_through(upstream, manager):
        manager.download(urls[1])
    assert [kept.name for kept in upstream.folder.iterdir()] == [path.name]
    assert before == (download_manager.get_downloader, extractor.get_extractor), "not as it was before"


@in_a_process_of_its_own
def test_tensorflow_datasets_fetches_through_us(tmp_path: Path) -> None:
    """Else see `tfds_compat.fetching_through`: each URL that a `DownloadManager` needs must come to `Upstream.place`.

    Find what the manager calls for one URL (4.9.10: `_Downloader.download`, which promises a `DownloadResult` of path,
    size and checksum), and what unpacks (`_Extractor`, with a pool of threads that an error must end).
    """
    remotely("tfds", "fetch_with_tfds", tmp_path)


def split_with_tfds(folder: Path) -> None:
    """Ask data sets of three kinds for what is in their splits."""
    import tensorflow_datasets as tfds

    class Usual(tfds.core.GeneratorBasedBuilder):
        """Numbers."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"a": tfds.features.Text()}))

        def _split_generators(self, dl_manager: Any) -> Any:
            return {tfds.Split.TRAIN: self._generate_examples(dl_manager)}

        def _generate_examples(self, text: str) -> Iterator[Any]:
            yield 0, {"a": text}

    class Older(Usual):
        """Numbers."""

        def _split_generators(self, dl_manager: Any) -> Any:
            return [tfds.core.SplitGenerator(name=tfds.Split.TRAIN, gen_kwargs={"text": dl_manager})]

    class Beam(Usual):
        """Numbers."""

        def _split_generators(self, dl_manager: Any, pipeline: Any) -> Any:
            raise AssertionError("not to be called")

    for kind in (Usual, Older):
        found = tfds_compat.split_generators(kind(data_dir=folder), "from the manager")
        assert found is not None
        assert {name: list(examples) for name, examples in found.items()} == {"train": [(0, {"a": "from the manager"})]}
    assert tfds_compat.split_generators(Beam(data_dir=folder), "") is None


@in_a_process_of_its_own
def test_tensorflow_datasets_gives_the_examples_of_each_split(tmp_path: Path) -> None:
    """Else see `tfds_compat.split_generators`: by split's name, pairs of a key and a mapping by feature.

    `GeneratorBasedBuilder._download_and_prepare` is the pattern; a set made with Beam must be told, not begun.
    """
    remotely("tfds", "split_with_tfds", tmp_path)


def fetch_with_torchvision(folder: Path) -> None:
    """Fetch what torchvision fetches by URL and from Google Drive; unpack what reaches out of its folder."""
    from torchvision.datasets import MNIST, utils

    class Digits(MNIST):
        mirrors = ("http://127.0.0.1:9/",)
        resources = [(name, hashlib.md5((SAMPLE / name).read_bytes()).hexdigest()) for name in FILES]  # noqa: RUF012

    upstream = upstream_of(folder)
    for name in FILES:
        (folder / "mirror" / name).symlink_to(SAMPLE / name)
    (folder / "mirror/driven").write_bytes(b"whole")
    archive(folder / "evil.tar.gz", **{"../evil": b""})
    names = ("check_integrity", "_urlretrieve", "_get_redirect_url", "download_file_from_google_drive")
    before = [getattr(utils, name) for name in names]
    with torchvision_compat.fetching_through(upstream, Digits):
        image, label = Digits(str(folder / "root"), download=True)[0]
        utils.download_url("https://drive.google.com/file/d/abc/view", folder / "root", "driven", None)
        with pytest.raises(tarfile.OutsideDestinationError):
            utils.extract_archive(str(folder / "evil.tar.gz"), str(folder / "root"))
    assert image.size == (28, 28)
    assert label in range(10)
    assert (folder / "root/driven").read_bytes() == b"whole"
    assert {kept.name for kept in upstream.folder.iterdir()} == {*FILES, "driven"}
    assert before == [getattr(utils, name) for name in names], "not as it was before"


@in_a_process_of_its_own
def test_torchvision_fetches_through_us(tmp_path: Path) -> None:
    """Else see `torchvision_compat.fetching_through`: each file that a data set needs must come to `Upstream.place`.

    Follow `torchvision.datasets.utils.download_url` to what opens a URL (0.29.2: `_urlretrieve`, after
    `_get_redirect_url`; `download_file_from_google_drive`), and to what is told the MD5 before (`check_integrity`).
    """
    remotely("torchvision", "fetch_with_torchvision", tmp_path)


def warm_imports_of(framework: str) -> None:
    """Find all that a warm worker of this framework imports."""
    assert all(importlib.util.find_spec(module) for module in frameworks.find(framework).warm_imports)


@in_a_process_of_its_own
@pytest.mark.parametrize(("provider", "framework"), [("torchvision", "pytorch"), ("tfds", "tensorflow")])
def test_what_a_warm_worker_imports_of_a_framework_is_there(provider: str, framework: str) -> None:
    """Else see `warm_imports` in core/frameworks.py: take the module's new name, or leave it out."""
    library(provider).do("import test_compat; test_compat.warm_imports_of(framework)", framework=framework)


def name_with_torchvision(_: Path) -> None:
    """Names of files of data sets that tell them in different ways."""
    from torchvision import datasets

    assert torchvision_compat.file_names(datasets.MNIST) == list(FILES)
    assert torchvision_compat.file_names(datasets.CIFAR10) == ["cifar-10-python.tar.gz"]
    assert torchvision_compat.file_names(datasets.ImageFolder) == []
    assert torchvision_compat.file_addresses(datasets.SVHN)[0].startswith("http://ufldl.stanford.edu/")
    assert torchvision_compat.file_addresses(datasets.ImageFolder) == []


@in_a_process_of_its_own
def test_torchvision_tells_the_names_of_its_files(tmp_path: Path) -> None:
    """Else see `torchvision_compat.file_names`: names alone, for the message that says what a mirror must hold.

    `file_addresses` tells `doctor` the hosts.

    Where a data set's class no longer tells them, leave them out: they are told one by one then.
    """
    remotely("torchvision", "name_with_torchvision", tmp_path)


# nowhere else -------------------------------------------------------------------------------------

PRIVATE = re.compile(
    r"hydra\.(_internal|core\.(global_hydra|override_parser|plugins|singleton)|plugins)"
    r"|mlflow\.(store|system_metrics|server|utils|tracking\.(context|_\w+)|data\.(code_dataset_source|meta_dataset))"
    r"|tensorflow_datasets\.core|torchvision\.(datasets\.utils|_\w+)"
    r"|(alembic|dvc|keras|omegaconf|pydantic|tensorflow|torch|torchvision)\.(\w+\.)*_[a-z]\w*"
)
_OF_PLUGINS = ("core.plugins.Plugins", "plugins.launcher.Launcher", "plugins.sweeper.Sweeper")
ALLOWED = {
    *("os._exit", "_fields", "_replace", "_asdict", "torch._inductor.compile_fx"),
    *(f"hydra.{name}" for each in _OF_PLUGINS for name in (each, each.rpartition(".")[0])),
}
"""What is documented all the same, and what a warm worker imports, see above; how a plugin of Hydra is written."""
FORMATS = ("mlflow.sharedViewState", "deflate;", "viewStateShareKey", "workflowType")


def is_private(name: str) -> bool:
    """Whether it starts with one underscore."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names(tree: ast.AST) -> set[str]:
    """Whatever a file gives a name to."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def undocumented(source: str) -> list[str]:
    """What a file takes from libraries that these do not document."""
    tree = ast.parse(source)
    own, found = own_names(tree), []
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if any(map(is_private, name.split(".")))]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
            if is_private(node.attr) and node.attr not in own and not {node.attr, names[0]} & ALLOWED:
                found.append(names[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            names = [node.value]
            found += [node.value for part in FORMATS if part in node.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "patch.object"):
            found += [
                text.value
                for text in node.args[1:2]
                if isinstance(text, ast.Constant) and is_private(text.value) and text.value not in own
            ]
        found += [name for name in names if PRIVATE.match(name) and name not in ALLOWED]
    return found


@pytest.mark.parametrize("file", sorted(set(PACKAGE.rglob("*.py")) - set(COMPAT)), ids=lambda file: file.stem)
def test_what_a_library_does_not_document_is_used_in_a_compat_module_only(file: Path) -> None:
    """Else move it to the module of that library (`*_compat.py`), as a function with a test above."""
    assert undocumented(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from hydra._internal.core_plugins.basic_sweeper import BasicSweeper",
        "from hydra.core.global_hydra import GlobalHydra",
        "import mlflow.store.tracking.sqlalchemy_store",
        "from mlflow.tracking import context",
        "from mlflow.tracking.context.registry import resolve_tags",
        "import mlflow\nmlflow.tracking.context.registry.resolve_tags()",
        "from torchvision.datasets import utils",
        "from torchvision.datasets.mnist import _Anything",
        "from tensorflow_datasets.core.download import downloader",
        "run.data._metric_objs",
        "class A:\n    def f(self): return self._process",
        "def f(monitor):\n    monitor._process = None",
        "getattr(builder, '_split_generators')(manager)",
        "importlib.import_module('mlflow.store.db')",
        "tag = 'mlflow.sharedViewState.' + key",
    ],
)
def test_what_is_not_documented_is_seen(source: str) -> None:
    assert undocumented(source) != []


def test_what_is_documented_or_one_s_own_is_let_through() -> None:
    source = '''
"""About mlflow.store and hydra._internal."""
import mlflow, os
from hydra.errors import HydraException
from mlflow.entities import Metric
from . import _own
class A:
    def __init__(self): self._a = 1
    def f(self, other): return other._a, self.__dict__, os._exit, mlflow.set_tracking_uri
'''
    assert undocumented(source) == []


@pytest.mark.parametrize("file", COMPAT, ids=lambda file: file.stem)
def test_all_that_a_compat_module_offers_has_a_test(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tests = "".join(Path(__file__).with_name(name).read_text() for name in ("test_compat.py", "test_messages.py"))
    offered = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not is_private(node.name)}
    assert offered
    assert sorted(name for name in offered if f"{file.stem}.{name}(" not in tests) == []
