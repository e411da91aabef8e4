"""`hydra/sweeper=search`: the space, the trials, what is pruned, what a kill leaves, the answer."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
from numpy_backend import NUMPY
from own_images import put
from project_copy import TINY, clone_project, run_module, start
from search_player import play_together

from pipeline import train
from pipeline.config.hydra_compat import Source
from pipeline.core import frameworks
from pipeline.core.frameworks import SeriesStyle
from pipeline.search import sampler, space, study
from pipeline.search.record import SearchRecord
from pipeline.search.study import Study, Trial
from pipeline.sweeps import job
from pipeline.sweeps.processes import JobProcess
from pipeline.sweeps.search.answer import Judged, sentence
from pipeline.tracking.views import in_sweep

pytestmark = pytest.mark.xdist_group("search")
RATE = "train.optimizer.learning_rate"
LOG = f"{RATE}=tag(log,interval(1e-3,1))"
SETTINGS = (
    *("data=folder", "data.root=images", "data.validation_fraction=0.3", "framework=numpy,other", "seeds=[0]"),
    *(
        "train.epochs=2",
        "sweep.parallel=1",
        "train.batch_size=8",
        "train.threads=1",
        "train.execution=eager",
        "evaluate.plots=false",
    ),
    *("tracking.system_metrics_seconds=null", "tracking.log_model=false", "compare.resamples=200"),
    *("search.fresh_seeds=[7,8]", "model.layers=[{type:flatten},{type:dense,units:classes}]"),
)
Search = Callable[..., int]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with 60 grey images of three classes, told apart by where they are bright."""
    folder = clone_project(tmp_path_factory.mktemp("search") / "project")
    draw = np.random.default_rng(0)
    for name, column in (("left", 0), ("middle", 2), ("right", 4)):
        for number in range(20):
            image = draw.integers(0, 160, (4, 6), np.uint8)
            image[:, column : column + 2] += 60
            put(folder / f"images/{name}/{number}.png", image)
    return folder


@pytest.fixture
def search(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    """`python -m pipeline.train -m hydra/sweeper=search`, with two frameworks of NumPy, and jobs in this process."""
    other = replace(NUMPY, name="other", style=SeriesStyle("Other", "#0072B2", 2.0))
    for framework in (NUMPY, other):
        monkeypatch.setitem(frameworks.FRAMEWORKS, framework.name, framework)
    monkeypatch.chdir(project)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(job, "end_with_parent", lambda: None)
    monkeypatch.setattr(JobProcess, "_run", as_method(_here))
    monkeypatch.setattr(sys, "argv", ["pipeline.train"])

    def call(*arguments: str, settings: tuple[str, ...] = SETTINGS) -> int:
        try:
            train.main(["-m", "hydra/sweeper=search", *settings, *arguments])
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return call


def as_method(run: Callable[[list[str]], tuple[int, str]]) -> Callable[[JobProcess, list[str]], tuple[int, str]]:
    return lambda _, command: run(command)


def _here(command: list[str]) -> tuple[int, str]:
    """Run the command of a job in this process."""
    try:
        job.main(command[command.index("--params") :])
    except SystemExit as ended:
        return int(ended.code or 0), "error: see above"
    return 0, ""


def _trials(folder: Path) -> list[Trial]:
    return Study(folder, SearchRecord.read(folder)).trials()


def _points(folder: Path) -> list[Any]:
    return [dict(trial.point) for trial in _trials(folder)]


# the space ----------------------------------------------------------------------------------------

SPACES = {
    f"{RATE}=tag(log,interval(1e-4,1e-1))": ("float", 1e-4, 1e-1, None, True),
    f"{RATE}=interval(1,8)": ("float", 1.0, 8.0, None, False),
    "train.batch_size=int(interval(8,64))": ("int", 8, 64, None, False),
    "train.batch_size=tag(int,log,interval(8,64))": ("int", 8, 64, None, True),
    "train.batch_size=range(8,65,8)": ("int", 8, 64, 8, False),
    "train.batch_size=tag(log,range(1,9))": ("int", 1, 8, None, True),
    "train.label_smoothing=range(0,0.75,0.25)": ("float", 0.0, 0.5, 0.25, False),
}


@pytest.mark.parametrize(("text", "expected"), SPACES.items())
def test_a_space_is_read_as_hydra_writes_it(text: str, expected: tuple[object, ...]) -> None:
    (found,) = space.parse([text, "train.epochs=3", "framework=tensorflow,pytorch"], Source(), "pytorch").dimensions
    assert (found.kind, found.low, found.high, found.step, found.log) == expected


def test_choices_are_the_values_of_an_override_and_frameworks_are_no_dimension() -> None:
    found = space.parse(
        [
            "train.batch_size=32,64",
            "train/optimizer=choice(adam,sgd)",
            "model=glob(le*)",
            "framework=tensorflow,pytorch",
        ],
        Source(),
        "pytorch",
    )
    assert [each.choices for each in found.dimensions] == [("32", "64"), ("adam", "sgd"), ("lenet5",)]
    assert found.frameworks == ("tensorflow", "pytorch")
    assert found.overrides({"train.batch_size": "64", "train/optimizer": "sgd", "model": "lenet5"}) == [
        *("train.batch_size=64", "train/optimizer=sgd", "model=lenet5"),
    ]


BAD = {
    "": "no key has a space; allowed: a=1,2,3",
    f"{RATE}=interval(3,1)": r"interval\(3,1\): allowed: interval\(low,high\) with low < high",
    f"{RATE}=interval(1,1)": "with low < high",
    f"{RATE}=tag(log,interval(0,1))": "0.0 has no logarithm; allowed: a first end above 0",
    f"{RATE}=tag(lgo,interval(1,2))": "the tag 'lgo' is unknown; allowed: log, int",
    "train.batch_size=range(3,1)": "has no values",
    "train.batch_size=tag(log,choice(1,2))": "choices have no order",
    "train.batch_size=tag(log,range(2,9,2))": "allowed with the tag log",
    "train.batch_size=tag(int,interval(1.5,3))": "whole ends",
    f"{RATE}=interval(0,1)": f"{RATE} = 0.0: .*greater than 0",
    "train.batch_size=0,8": "train.batch_size = 0: .*greater than or equal to 1",
    "train.batch_sise=8,16": "train.batch_sise = 8: unknown key; did you mean batch_size",
    "model=simple_cnn,vgg": "model = 'vgg': unknown; allowed: lenet5",
    f"{LOG} framework=numpy,jax": "framework = 'jax': allowed",
    f"{LOG} framework=interval(0,1)": "allowed: names, such as framework=",
    "seeds=[0],[1]": "every point is trained with the same seeds",
    "train.epochs=1,2": "every point has the same budget",
    "data=mnist,mnist_sample": "data=mnist,mnist_sample: not searched over; allowed: .* model and train",
    "search.trials=4,5": "search.trials=4,5: not searched over",
    f"{LOG} {RATE}=0.1": "is given twice, also as train.optimizer.learning_rate=0.1",
    f"{LOG} framework=numpy": "framework is given twice",
    f"{LOG} hydra.sweep.subdir=x": "hydra.sweep.subdir=x: a search names the folders of its trials",
    f"{LOG} search.trials=0": "search.trials = 0",
    f"{LOG} search/sampler=grid": "search/sampler = 'grid': unknown; allowed: qmc, random, tpe",
    f"{LOG} search/pruner=hyperband search.pruner.min_resource=9": "min_resource = 9: a trial has 4 epochs in all",
    f"{LOG} search.fresh_seeds=[0,1]": r"search.fresh_seeds = \[0, 1\]: 0 is one of seeds = \[0\]",
    f"{LOG} search.storage=nowhere": "search.storage = 'nowhere': allowed: null, or a URL",
    f"{LOG} search.storage=postgresql://u:secret@h/d": "search.storage: has a password",
    f"{LOG} search.storage=sqlite:////no/such/folder/x.db": "search.storage = sqlite:////no/.*: cannot be used",
}


@pytest.mark.parametrize(("arguments", "message"), BAD.items())
def test_a_bad_space_is_refused_in_one_line_before_any_work(
    search: Search, project: Path, capfd: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    given = arguments.split()
    keys = {each.split("=")[0] for each in given} - ({"framework"} if "twice" in message else set())
    settings = tuple(each for each in SETTINGS if each.split("=")[0] not in keys)
    assert search(*given, settings=settings) == 2
    said = capfd.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1, said
    assert "secret" not in said
    assert not list(project.glob("multirun/*/search.json"))


def test_a_search_needs_the_option_of_a_sweep(search: Search, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["hydra/sweeper=search", *SETTINGS[:3], "framework=numpy"])
    assert "hydra/sweeper = search: is of a sweep, and this is a single run; allowed: with -m" in capfd.readouterr().err


# the trials ---------------------------------------------------------------------------------------


def test_every_trial_trains_all_frameworks_at_one_point_and_the_best_are_judged(
    search: Search, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = (LOG, "train.label_smoothing=0.0,0.1", "search.trials=4", "hydra.sweep.dir=multirun/whole")
    assert search(*arguments) == 0
    folder, said = project / "multirun/whole", capfd.readouterr().out
    trials = _trials(folder)
    assert [trial.state for trial in trials] == ["complete"] * 4
    for trial in trials:
        parts = {
            name: json.loads((folder / f"{trial.number}/{name}/manifest.json").read_text()) for name in trial.accuracy
        }
        assert list(parts) == list(trial.accuracy)
        assert set(parts) == {"numpy", "other"}
        for manifest in parts.values():
            assert manifest["settings"]["train"]["optimizer"]["learning_rate"] == trial.point[RATE]
            assert str(manifest["settings"]["train"]["label_smoothing"]) == trial.point["train.label_smoothing"]
        assert trial.value == pytest.approx(np.mean(list(trial.accuracy.values())))
        assert trial.epochs == {"numpy": 2, "other": 2}
    assert len({trial.point[RATE] for trial in trials}) == 4
    best = study.ranked(trials)[0]
    (chosen,) = folder.glob("chosen/*/*")
    assert chosen.name == str(best.number)
    predictions = np.load(chosen / "other/predictions.npz")
    assert predictions["seeds"].tolist() == [7, 8]
    assert not list(folder.glob("[0-9]/*/predictions.npz"))  # the test split has no say in the choice
    answer = json.loads((folder / "answer.json").read_text())
    assert answer["sentence"].startswith("Tuned with the same budget (4 trials): ")
    assert "NumPy minus Other: 0.00 points" in " ".join(said.split())
    runs = _runs(project, "whole")
    assert {run.data.tags["search.state"] for run in runs if "search.trial" in run.data.tags} == {"complete"}
    assert search(*arguments) == 0  # nothing is trained again
    said = capfd.readouterr().out
    assert "the search is done" in said
    assert "epoch 1/2" not in said
    assert answer["sentence"] in " ".join(said.split())
    assert len(_runs(project, "whole")) == len(runs)
    html = (folder / "search.html").read_text()
    assert answer["sentence"].partition(". ")[0] in html
    assert "best for <span" in html
    assert not re.search(r"(src|href)=\"http", html)
    (parent,) = (run for run in runs if run.data.tags["stage"] == "sweep")
    assert parent.info.status == "FINISHED"
    assert {"best/numpy", "best/other", "best/validation_accuracy", "search/best_other"} <= parent.data.metrics.keys()
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"search.html", "pictures"}


@pytest.mark.usefixtures("search")
def test_a_sweep_that_is_run_again_takes_the_place_of_the_earlier_one_in_mlflow(project: Path) -> None:
    """Else its view shows every job twice, and a comparison takes either."""
    settings = [each for each in SETTINGS if not each.startswith("search.")]
    arguments = ["-m", *settings, "train.epochs=1", "train.clip_norm=1,2", "hydra.sweep.dir=again"]
    for more in ([], ["sweep.rerun=true"]):
        train.main([*arguments, *more])
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.sweep = 'again'")
    assert len(runs) == 10  # four jobs and their parent, twice
    shown = client.search_runs(experiments, in_sweep("again"))
    assert {run.info.run_id for run in shown} == {run.info.run_id for run in runs[:5]}
    assert sorted(run.data.tags["stage"] for run in shown) == ["sweep", "train", "train", "train", "train"]


def test_a_search_in_one_framework_names_its_best_point(
    search: Search, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = tuple(each.replace("framework=numpy,other", "framework=numpy") for each in SETTINGS)
    rates = f"{RATE}=0.1,0.2"
    assert search(rates, "search.trials=3", "train.epochs=1", "hydra.sweep.dir=multirun/one", settings=settings) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "2 trials, not 3: the space has no more points" in said
    assert re.search(r"NumPy: the best of 2 trials is trial [01] \(lr=\d\S*\)\.", said)
    assert "which is better" not in (project / "multirun/one/search.html").read_text()
    assert not (project / "multirun/one/comparison").exists()


@pytest.mark.parametrize("said", ["TensorFlow is better. X.", "equivalent within 1. X.", "inconclusive; one seed. X."])
def test_the_answer_keeps_the_names_of_frameworks(said: str) -> None:
    own = said.replace("inconclusive; ", "inconclusive: ").replace("equ", "Equ").replace("inc", "Inc")
    comparison: Any = SimpleNamespace(sentence=lambda _: own)
    judged = [Judged("own", "pytorch", comparison), Judged("common", "pytorch", comparison)]
    assert sentence([], judged) == f"Tuned with the same budget (0 trials): {said}"


def _runs(project: Path, name: str) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.sweep = '{name}'"))


def test_a_point_that_others_outdo_is_pruned_for_all_frameworks_and_no_failure(
    search: Search, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With seed 1, random: rates of 0.02, 0.7, 0.0013, 0.01; the third learns least."""
    arguments = (LOG, "search.trials=4", "search/sampler=random", "search.seed=1", "search.pruner.startup_trials=2")
    arguments += ("train/schedule=constant",)
    assert search(*arguments, "hydra.sweep.dir=multirun/pruned") == 0
    folder = project / "multirun/pruned"
    trials = _trials(folder)
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.number >= 2
        assert re.match(r"(numpy|other): pruned after epoch \d of seed 0: validation accuracy 0\.\d+", trial.reason)
        assert sum(trial.epochs.values()) < 4
        assert trial.value is None
        (first, *_) = trial.epochs
        assert first == ("numpy", "other")[trial.number % 2]  # each of them comes first in turn
        assert (folder / f"{trial.number}/{first}/params.yaml").exists()
        assert not list(folder.glob(f"{trial.number}/*/failure.json"))
        runs = [run for run in _runs(project, "pruned") if run.data.tags.get("search.trial") == str(trial.number)]
        assert runs
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert runs[0].data.tags["search.state"] == "pruned"
        assert "validation/accuracy" in runs[0].data.metrics
    assert not list((project / "checkpoints").glob("*/state.safetensors"))
    answer = json.loads((folder / "answer.json").read_text())
    assert {trials[number].state for number in (*answer["chosen"].values(), answer["common"])} == {"complete"}
    assert f"{len(pruned)} pruned" in capfd.readouterr().out


def test_an_interrupted_search_goes_on_at_its_points_and_loses_no_trial(
    search: Search, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = (LOG, "search.trials=3", "train.epochs=1", "search.seed=5", "search/pruner=none")
    jobs: list[str] = []

    def interrupted_at(count: int) -> Callable[[list[str]], tuple[int, str]]:
        def run(command: list[str]) -> tuple[int, str]:
            jobs.append(command[-1])
            if len(jobs) == count:
                raise KeyboardInterrupt
            return _here(command)

        return run

    monkeypatch.setattr(JobProcess, "_run", as_method(interrupted_at(4)))  # the second framework of trial 1
    assert search(*arguments) == 130
    (folder,) = (path.parent for path in project.glob("multirun/2*/search.json"))
    before = _trials(folder)
    assert [trial.state for trial in before] == ["complete", "running", "waiting"]
    monkeypatch.setattr(JobProcess, "_run", as_method(interrupted_at(8)))  # a chosen point
    assert search(*arguments) == 130
    assert "1 of 3 trials are finished" in capfd.readouterr().out
    monkeypatch.setattr(JobProcess, "_run", as_method(interrupted_at(0)))
    assert search(*arguments) == 0
    after = _trials(folder)
    assert [trial.state for trial in after] == ["complete"] * 3
    assert [dict(trial.point) for trial in after[:2]] == [dict(trial.point) for trial in before[:2]]
    done = [str(Path(job).relative_to(folder)) for number, job in enumerate(map(_absolute(project), jobs), 1)]
    assert sorted(done[:4]) == ["0/numpy", "0/other", "1/numpy", "1/other"]
    assert sorted(done[4:7]) == sorted([done[3], "2/numpy", "2/other"])
    assert done[7] in done[8:]  # the chosen point that was interrupted
    assert search(*arguments, "search.trials=4") == 0  # one more
    assert [dict(trial.point) for trial in _trials(folder)][:3] == [dict(trial.point) for trial in after]
    assert len(_trials(folder)) == 4


def _absolute(project: Path) -> Callable[[str], Path]:
    return lambda path: project / path


def test_a_job_that_failed_is_trained_again_and_one_that_diverged_is_a_bad_point(
    search: Search, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train/optimizer=sgd", f"{RATE}=0.1,1e30", "search.trials=2", "train.epochs=1")
    arguments = (*arguments, "search/sampler=random", "hydra.sweep.dir=multirun/failed")

    def killed(command: list[str]) -> tuple[int, str]:
        return (-9, "") if "/0/" in command[-1] else _here(command)

    monkeypatch.setattr(JobProcess, "_run", as_method(killed))
    assert search(*arguments) == 1
    said = capfd.readouterr().out
    assert re.search(r"failed: 0/numpy: its process was ended by SIGKILL", " ".join(said.split()))
    folder = project / "multirun/failed"
    assert _trials(folder)[0].state == "running"
    assert not (folder / "answer.json").exists()
    monkeypatch.setattr(JobProcess, "_run", as_method(_here))
    assert search(*arguments) == 0
    trials = _trials(folder)
    diverged = [trial for trial in trials if trial.point[RATE] == "1e+30"]
    assert diverged
    assert {trial.state for trial in diverged} == {"pruned"}
    assert "loss is" in diverged[0].reason
    assert {trial.state for trial in trials if trial not in diverged} == {"complete"}
    assert len(diverged) == 1


def test_a_point_that_is_drawn_again_is_not_trained_again(
    search: Search, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As two processes at one moment may draw it, or a sampler in a large finite space."""
    monkeypatch.setattr(sampler, "_ATTEMPTS", 1)
    monkeypatch.setattr(sampler, "_MOST_LISTED", 1)
    monkeypatch.setattr(sampler.RandomSampler, "sample_independent", lambda *_: "0.1")
    arguments = (f"{RATE}=0.1,0.2", "search.trials=2", "train.epochs=1", "search/sampler=random")
    assert search(*arguments, "hydra.sweep.dir=multirun/twins") == 0
    assert "trial 1: the point of trial 0, whose results are taken over" in capfd.readouterr().out
    trials = _trials(project / "multirun/twins")
    assert [trial.epochs for trial in trials] == [{"numpy": 1, "other": 1}, {"numpy": 0, "other": 0}]
    assert trials[0].accuracy == trials[1].accuracy


# the sampler --------------------------------------------------------------------------------------


def _record(sampler: str, seed: int, trials: int, *pruner: str) -> SearchRecord:
    from pipeline.config.compose import compose

    overrides = [f"search/sampler={sampler}", f"search.seed={seed}", f"search.trials={trials}", *pruner]
    found = space.parse([LOG, "train.batch_size=16,32,64", "train.clip_norm=range(1,9)"], Source(), "pytorch")
    settings = compose(overrides).search
    return SearchRecord(
        name="s", parent="", space=found, hydra=(), config_name="config", config_dir=None, settings=settings, epochs=3
    )


def _searched(folder: Path, record: SearchRecord, order: list[int]) -> list[Any]:
    """The points of a search whose results are a function of its points, each trial in a `Study` of its own."""
    folder.mkdir()
    Study(folder, record).prepare()
    for number in order:
        each = Study(folder, record, number)
        point = each.draw(number).point
        each.end(number, -abs(float(point[RATE]) - 0.03))
    return [dict(trial.point) for trial in Study(folder, record).trials()]


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "random"])
def test_a_seed_gives_its_points_and_no_point_twice(tmp_path: Path, sampler: str) -> None:
    points = _searched(tmp_path / "a", _record(sampler, 3, 14), list(range(14)))
    assert points == _searched(tmp_path / "b", _record(sampler, 3, 14), list(range(14)))
    assert points != _searched(tmp_path / "c", _record(sampler, 4, 14), list(range(14)))
    assert len({point[RATE] for point in points}) == 14
    assert {point["train.batch_size"] for point in points} == {"16", "32", "64"}
    assert {type(point["train.clip_norm"]) for point in points} == {int}
    assert all(1e-3 <= point[RATE] <= 1 and 1 <= point["train.clip_norm"] <= 8 for point in points)


FINITE = ("train.batch_size=16,32,64", "train.clip_norm=range(1,4)", "train.label_smoothing=range(0,0.3,0.1)")


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "random"])
def test_a_finite_space_is_drawn_to_its_last_point_before_any_is_repeated(tmp_path: Path, sampler: str) -> None:
    record = _record(sampler, 3, 30)
    finite = space.parse(FINITE, Source(), "pytorch")
    assert finite.size == len(list(finite.points())) == 27
    record = record.model_copy(update={"space": finite})
    Study(tmp_path, record).prepare()
    for number in range(30):
        each = Study(tmp_path, record, number)
        point = each.draw(number).point
        each.end(number, float(point["train.clip_norm"]) - float(point["train.label_smoothing"]))
    points = [tuple(f"{value}"[:8] for value in point.values()) for point in _points_of(tmp_path, record)]
    assert len(set(points[:27])) == 27
    assert set(points[27:]) <= set(points[:27])


def _points_of(folder: Path, record: SearchRecord) -> list[Any]:
    return [trial.point for trial in Study(folder, record).trials()]


def test_equal_trials_have_the_same_rank() -> None:
    def trial(number: int, accuracy: float, loss: float = 1.0) -> Trial:
        return Trial(number, "complete", {}, accuracy, {"numpy": accuracy}, {"numpy": loss}, {}, "")

    trials = [trial(0, 0.5), trial(1, 0.9), trial(2, 0.5000001), trial(3, 0.9, 0.5)]
    assert [(rank, each.number) for rank, each in study.ranks(trials)] == [("1", 3), ("2", 1), ("3=", 0), ("3=", 2)]
    assert [each.number for each in study.ranked(trials, "numpy")] == [3, 1, 0, 2]


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_points_that_no_result_decides_are_the_same_in_any_order_and_number(tmp_path: Path, sampler: str) -> None:
    forwards = _searched(tmp_path / "a", _record(sampler, 3, 6), list(range(6)))
    backwards = _searched(tmp_path / "b", _record(sampler, 3, 9), list(reversed(range(9))))
    assert backwards[:6] == forwards


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_a_pruner_ends_what_is_worse_than_the_others(tmp_path: Path, pruner: str) -> None:
    record = _record("random", 0, 12, f"search/pruner={pruner}")
    Study(tmp_path, record).prepare()
    ended = []
    for number in range(12):
        each = Study(tmp_path, record, number)
        each.draw(number)
        value = 0.9 if number < 8 else 0.1
        pruned = next((step for step in range(1, 4) if each.report(number, step, value)), None)
        ended.append(pruned)
        each.end(number, **({"pruned": "bad"} if pruned else {"value": value}))  # type: ignore[arg-type]
    worse = [step for step in ended[8:] if step]
    assert bool(worse) == (pruner != "none")
    assert not any(ended[:8]) or pruner == "hyperband"


def test_processes_at_the_same_time_lose_no_trial_and_draw_none_twice(tmp_path: Path) -> None:
    record = _record("tpe", 0, 12)
    trials = play_together(tmp_path, record)
    assert [trial.state for trial in trials] == ["complete"] * 12
    assert len({trial.point[RATE] for trial in trials}) == 12
    assert all(trial.accuracy == {"pytorch": 0.5} for trial in trials)


def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    record = _record("random", 0, 2)
    Study(tmp_path, record).prepare()
    with (tmp_path / study.JOURNAL).open("a") as file:
        file.write('{"op_code":4,"work')
    study.mend(tmp_path)
    Study(tmp_path, record, 1).draw(1)
    assert [trial.state for trial in Study(tmp_path, record).trials()] == ["waiting", "running"]
    study.mend(tmp_path / "nothing")


def test_a_database_holds_a_study_as_the_file_does(tmp_path: Path) -> None:
    record = _record("tpe", 3, 4, f"search.storage=sqlite:///{tmp_path}/study.db")
    (tmp_path / "x").mkdir()
    points = _searched(tmp_path / "a", record, [0, 1, 2, 3])
    assert points == _searched(tmp_path / "b", _record("tpe", 3, 4), [0, 1, 2, 3])
    assert not (tmp_path / "a" / study.JOURNAL).exists()


# the real frameworks --------------------------------------------------------------------------------


def test_a_search_that_is_killed_goes_on_with_both_frameworks(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    arguments = (
        *("-m", "hydra/sweeper=search", "search.trials=2", f"{RATE}=tag(log,interval(1e-3,1e-2))", *TINY),
        *(
            "framework=tensorflow,pytorch",
            "train.execution=eager",
            "train.epochs=1",
            "train/schedule=constant",
            "seeds=[0]",
            "evaluate.plots=false",
        ),
        *("search.fresh_seeds=[7]", "tracking.log_model=false", "tracking.system_metrics_seconds=null"),
        "evaluate.plots=false",
    )
    process = start(project, "pipeline.train", *arguments)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("train tensorflow"):  # the first framework of the first trial is done
            break
    process.kill()
    process.wait()
    done = run_module(project, "pipeline.train", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials: 2 complete" in done.stdout
    assert "Tuned with the same budget (2 trials): inconclusive; one seed cannot tell" in done.stdout
    (folder,) = project.glob("multirun/*")
    for trial in _trials(folder):
        assert trial.accuracy["tensorflow"] == pytest.approx(trial.accuracy["pytorch"], abs=0.15)
    done = run_module(project, "pipeline.compare", f"sweep={folder.name}")
    assert done.returncode == 0, done.stderr
