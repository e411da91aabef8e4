"""The ranking of a sweep: seeds are pooled, ties are said, and a thousand jobs stay readable."""

import base64
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.config.compose import compose
from pipeline.config.labels import parameters, short_keys, short_label
from pipeline.config.schema.sweep import SortKey
from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.progress import console
from pipeline.sweeps.plan import SweepJob, SweepPlan
from pipeline.sweeps.points import FinishedJob, Scores, rank
from pipeline.sweeps.ranking import Ranking
from pipeline.tracking.journal import Journal
from pipeline.tracking.runs import Costs, Run
from pipeline.tracking.views import TAG, sweep_key, views
from pipeline.training.results import HistoryRow, history_csv

CONFIG = compose(["framework=pytorch"])
RATE = "train.optimizer.learning_rate"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)


def job(number: int, rate: str, framework: str = "pytorch", seeds: Sequence[int] = (0,)) -> SweepJob:
    model = CONFIG.model.model_copy(update={"name": rate})  # stands for the rate: any text is a name
    config = CONFIG.model_copy(update={"framework": framework, "seeds": list(seeds), "model": model})
    return SweepJob(number, (), config, f"{number:016x}", {RATE: rate}, Path(str(number)))


def done(of: SweepJob, *accuracies: float, loss: float = 0.5, speed: float = 100.0) -> FinishedJob:
    return FinishedJob(of, {s: Scores(a, loss, speed) for s, a in zip(of.config.seeds, accuracies, strict=True)})


def ranking(folder: Path, finished: Sequence[FinishedJob], failures: Sequence[tuple[SweepJob, str]] = ()) -> Ranking:
    return Ranking(folder, "mine", CONFIG.sweep, finished, failures)


@pytest.mark.parametrize(
    ("sort", "numbers"),
    [("validation_accuracy", [2, 1, 0]), ("validation_loss", [1, 2, 0]), ("train_images_per_second", [0, 2, 1])],
)
def test_the_order_is_that_of_the_chosen_metric_whichever_job_ended_first(sort: SortKey, numbers: list[int]) -> None:
    finished = [
        done(job(0, "1"), 0.9, loss=0.6, speed=300),
        done(job(1, "2"), 0.9, loss=0.3, speed=100),
        done(job(2, "3"), 0.95, loss=0.4, speed=200),
    ]
    for _ in range(6):
        random.shuffle(finished)
        assert [each.point.jobs[0].number for each in rank(finished, sort)] == numbers


def test_points_that_are_equal_as_shown_share_a_rank() -> None:
    values = {0: 0.8, 1: 0.9, 2: 0.9, 3: 0.7}
    finished = [done(job(n, str(n)), value, loss=0.2 + n * 1e-7) for n, value in values.items()]  # of two frameworks
    for order in (finished, finished[::-1]):
        ranked = [(each.rank, each.point.jobs[0].number) for each in rank(order, "validation_accuracy")]
        assert ranked == [("1=", 1), ("1=", 2), ("3", 0), ("4", 3)]


def test_what_is_not_finite_comes_last() -> None:
    finished = [done(job(0, "1"), float("nan"), loss=float("nan")), done(job(1, "2"), 0.1)]
    assert [each.point.jobs[0].number for each in rank(finished, "validation_loss")] == [1, 0]


def test_jobs_that_differ_in_seeds_alone_are_one_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished = [
        *(done(job(n, "0.1", seeds=[n]), value) for n, value in enumerate((0.90, 0.92, 0.94))),
        done(job(3, "0.2", seeds=[0, 1]), 0.91, 0.93),
        done(job(4, "0.1", "tensorflow"), 0.99),
        done(job(6, "0.1", seeds=[2, 0]), 0.94, 0.90),  # measured already: a copy is no further measurement
    ]
    mine = ranking(tmp_path, finished[::-1])
    mine.write()
    mine.show()
    rows = (tmp_path / "ranking.md").read_text().splitlines()
    assert "| 1 | 4 | tensorflow | 0.1 | 1 | 0.9900 | 0.5000 | 100 |" in rows
    assert "| 2= | 0-2 6 | pytorch | 0.1 | 3 | 0.9200 ± 0.0200 | 0.5000 ± 0.0000 | 100 |" in rows
    assert "| 2= | 3 | pytorch | 0.2 | 2 | 0.9200 ± 0.0141 | 0.5000 ± 0.0000 | 100 |" in rows
    shown = capsys.readouterr().out
    assert "mine: 6 done, 0 failed; by validation accuracy, highest first" in shown
    assert "0.9200 ± 0.0200" in shown


def test_a_thousand_jobs_stay_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished = [done(job(n, f"{n}{'9' * 200}"), n / 1000) for n in range(1000)]
    mine = ranking(tmp_path, finished, [(job(1000 + n, "x|y"), "it [broke]\nhere") for n in range(100)])
    mine.write()
    mine.show()
    shown = capsys.readouterr().out
    assert "the best 30 of 1000; all: " in shown
    assert "failed: job 1000: pytorch learning_rate=x|y: it [broke]" in shown  # no markup of a terminal's
    assert "70 more failed: " in shown
    assert len(shown.splitlines()) < 2 * 30 + 40
    lines = (tmp_path / "ranking.md").read_text().splitlines()
    assert len(lines) == 4 + 1000 + 100
    assert lines[4].startswith("| 1 | 999 |")
    assert lines[-1].startswith("| failed | 1099 | pytorch | x\\|y |  | it [broke] here |")
    described = mine.description()
    assert len(described) <= 7000
    assert described.splitlines()[2].startswith("| 1 | 999 |")
    assert "of 1000 are shown" in described.splitlines()[-1]


def test_values_in_brackets_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranking(tmp_path, [done(job(0, "[bold]"), 0.5)], [(job(1, "[red]"), "[/]")]).show()
    shown = capsys.readouterr().out
    assert "[bold]" in shown
    assert "learning_rate=[red]: [/]" in shown


def finish(folder: Path, accuracies: Mapping[int, float]) -> None:
    """Write what a job leaves."""
    rows = [
        HistoryRow(seed, 1, split, 0.5, value)
        for seed, value in accuracies.items()
        for split in ("train", "validation")
    ]
    folder.mkdir()
    (folder / "history.csv").write_text(history_csv(rows))
    mean = sum(accuracies.values()) / len(accuracies)
    write_json(
        folder / "summary.json", {"validation_accuracy": mean, "validation_loss": 0.5, "train_images_per_second": 9}
    )


def test_a_job_is_ranked_by_the_files_that_it_left_and_without_them_has_failed(tmp_path: Path) -> None:
    """Those that other versions left are the same."""
    for number in range(5):
        finish(tmp_path / str(number), {0: 0.4, 1: 0.6})
    (tmp_path / "1/history.csv").unlink()
    (tmp_path / "2/history.csv").write_text("seed,epoch\n0,x\n")
    (tmp_path / "3/summary.json").write_text('{"validation_accuracy": [1]}')
    (tmp_path / "4/summary.json").unlink()
    jobs = [(job(n, str(n), seeds=[0, 1]), tmp_path / str(n)) for n in range(5)]
    read = Ranking.read(tmp_path, "mine", [*jobs, (job(5, "5", seeds=[0, 7]), tmp_path / "0")])
    (point,) = read.ranked
    assert (point.point.seeds, point.point.jobs[0].number) == (2, 0)
    reasons = {failed.number: reason for failed, reason in read.failures}
    assert sorted(reasons) == [1, 2, 3, 4, 5]
    for number in (1, 2, 3):
        assert f"delete {tmp_path / str(number)}, and run the same command again" in reasons[number]
    assert "has no result" in reasons[4]
    assert "lacks the seeds [7]" in reasons[5]


LABELS: Mapping[str, Mapping[str, str]] = {
    "lr=0.001 bs=64 adam": {RATE: "0.001", "train.batch_size": "64", "train/optimizer": "adam"},
    "lenet5 normalise=true clip_norm=null": {"model": "lenet5", "model.normalise": "true", "train.clip_norm": "null"},
    "a.x=1 b.x=2": {"a.x": "1", "+b.x": "2"},
    "layers=[{type:conv…,units:10}]": {"model.layers": "[{type:conv,filters:8},{type:dense,units:10}]"},
    "": {},
}


@pytest.mark.parametrize(("label", "varied"), [(label, varied) for label, varied in LABELS.items()])
def test_a_job_s_name_says_what_its_values_are(label: str, varied: Mapping[str, str]) -> None:
    assert short_label(varied) == label
    made = SweepJob(0, (), CONFIG, "key", varied, Path("0"))
    assert made.membership("sweep", "parent").values == " ".join(f"{key}={value}" for key, value in varied.items())


def test_a_column_has_the_last_part_of_a_key_unless_two_share_it() -> None:
    assert short_keys(["a.b.x", "c/d", "+e.y", "f.y"]) == {"a.b.x": "x", "c/d": "d", "+e.y": "e.y", "f.y": "f.y"}


def test_a_sweep_s_view_has_the_parameters_that_runs_log_and_no_test_scores() -> None:
    keys = [RATE, "model", "train/optimizer", "experiment", "evaluate.plots", "hydra.job.name", "+train.clip_norm"]
    found = parameters(keys, compose(["train.clip_norm=1"]))
    assert found == [RATE, "model.name", "train.optimizer.name", "train.clip_norm"]
    view = json.loads(views(sweeps={"mine": found})[TAG + sweep_key("mine")])
    state = zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))).decode()
    assert json.loads(state)["orderByKey"] == "metrics.`validation/accuracy`"
    assert {f"params.`{name}`" for name in found} < set(json.loads(state)["selectedColumns"])
    assert "test/" not in state


def test_a_setting_of_the_whole_sweep_has_one_value() -> None:
    with pytest.raises(UserError, match=r"^sweep.sort: several values; allowed: one"):
        SweepPlan([["sweep.sort=validation_loss"], ["sweep.sort=validation_accuracy"]]).jobs()


@pytest.mark.parametrize("value", ["sort=test_accuracy", "sort=null", "top=0", "top=all"])
def test_a_ranking_has_no_other_metric_and_at_least_a_row(value: str) -> None:
    key = value.split("=")[0]
    with pytest.raises(UserError, match=rf"^sweep.{key} = .*"):
        compose([f"sweep.{value}"])


def test_a_long_description_is_cut_at_the_end_of_a_line(tmp_path: Path) -> None:
    run = Run(Costs(), Journal.create(tmp_path))
    run.describe("\n".join(f"| {'x' * 90} |" for _ in range(200)))
    (text,) = [event["values"]["mlflow.note.content"] for event, _ in run.journal.events()]
    assert len(text) < 8000  # MLflow's limit of a tag
    assert set(text.splitlines()) == {f"| {'x' * 90} |", "", "(cut: MLflow's limit)"}
