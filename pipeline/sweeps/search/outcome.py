"""What a search found: `answer.json`, the page, the comparisons, and what MLflow shows of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ...comparison.arm import from_results
from ...config.schema.section import Section
from ...config.schema.whole import Config
from ...core.files import read_json, read_text, write_text
from ...core.frameworks import FRAMEWORKS
from ...core.paths import main_root
from ...core.progress import console
from ...data.cache import obtain
from ...data.dataset import Dataset
from ...reports.figures.style import data_uri, save
from ...reports.publish import publish
from ...reports.search_page import JudgedPair, SearchResult, figures_of, page
from ...search.pictures import pictures
from ...search.record import SearchRecord
from ...search.study import Study, Trial, ranked
from ...tracking.runs import Run
from ..folders import without_year
from ..processes import Failure
from .answer import Judged, judge, sentence
from .chosen import Chosen, choose, home, open_jobs
from .table import markdown

_ANSWER: Final = "answer.json"
_PAGE: Final = "search.html"
_TITLES: Final = {"own": "Each at its own best point", "common": "Both at the point that is best for all"}


class Answer(Section):
    """`answer.json`."""

    sentence: str
    trials: int
    fresh_seeds: list[int]
    chosen: dict[str, int]
    """Number of the best trial by framework."""
    common: int
    """Number of the trial that is best by the mean over the frameworks."""
    reports: list[str]
    """Paths of the comparisons' pages, relative to the folder of the search."""

    @classmethod
    def read(cls, folder: Path) -> "Answer | None":
        """Return the answer of the search in this folder; None: it has none yet."""
        path = folder / _ANSWER
        return cls.model_validate_json(read_text(path)) if path.exists() else None


def failures_of(folder: Path, record: SearchRecord, trials: Sequence[Trial]) -> dict[Path, Failure]:
    """Return the failures of the jobs that are still open, by folder, relative to that of the search."""
    numbers = [trial.number for trial in trials if not trial.finished]
    paths = [Path(str(number)) / name for number in numbers for name in record.space.frameworks]
    if not numbers and (chosen := choose(record, trials)):
        paths = list(open_jobs(folder, record, chosen))
    files = {path: folder / path / "failure.json" for path in paths}
    return {path: Failure(**read_json(file)) for path, file in files.items() if file.exists()}


def write_answer(folder: Path, study: Study, record: SearchRecord, config: Config, run: Run) -> None:
    """Compare the chosen points on the test split; write and log the answer, the page and the pictures.

    `config`: of any trial. Every trial is finished, and every chosen point is trained again.
    """
    chosen = choose(record, study.trials())
    assert chosen
    result = _result(folder, study, record, config, chosen)
    figures = figures_of(result)
    write_text(folder / _PAGE, page(result, {name: data_uri(figure) for name, figure in figures.items()}))
    drawn = [save(f, folder / "pictures" / f"{name}.png") for name, f in (figures | dict(pictures(study))).items()]
    _log(run, folder / _PAGE, drawn, result, chosen)
    answer = Answer(
        sentence=result.sentence,
        trials=len(result.trials),
        fresh_seeds=record.settings.fresh_seeds,
        chosen=dict(result.chosen),
        common=result.common,
        reports=[pair.report for pair in result.judged],
    )
    write_text(folder / _ANSWER, answer.model_dump_json(indent=2) + "\n")


def _result(folder: Path, study: Study, record: SearchRecord, config: Config, chosen: Chosen) -> SearchResult:
    """Compare the chosen points, publish the comparisons, and return all that was found."""
    trials, dataset = study.trials(), obtain(config.data, main_root())
    judged = judge(folder, record, chosen, config)
    pairs = [_publish(folder, record, each, dataset, config) for each in judged]
    return SearchResult(
        record=record,
        trials=trials,
        sentence=sentence(trials, judged) or _alone(record, trials),
        model=config.model.name,
        data=dataset.name,
        seeds=config.seeds,
        chosen={name: trial.number for name, trial in chosen.own.items()},
        common=chosen.common.number,
        importances={name: study.importances(name) for name in record.space.frameworks},
        judged=pairs,
        arms={
            (number, name): from_results(name, folder / home(record, number))
            for name in record.space.frameworks
            for number, other in chosen.jobs
            if other == name
        },
    )


def tell(folder: Path, answer: Answer) -> None:
    """Print the answer and where to read on."""
    console.print(answer.sentence, highlight=False)
    for path in (_PAGE, *answer.reports):
        console.print(f"Report: {folder / path}", highlight=False)


def _publish(folder: Path, record: SearchRecord, judged: Judged, dataset: Dataset, config: Config) -> JudgedPair:
    several = len(record.space.frameworks) > 2
    place = Path("comparison") / judged.kind / (judged.framework if several else "")
    label, tags = f"{without_year(record.name)} tuned {judged.kind}", {"sweep": record.name}
    publish(judged.comparison, folder / place, dataset, config.tracking, label=label, parent=record.parent, tags=tags)
    return JudgedPair(_TITLES[judged.kind], judged.comparison, str(place / "report.html"))


def _alone(record: SearchRecord, trials: Sequence[Trial]) -> str:
    """Put the result of a search with a single framework into words."""
    (name,) = record.space.frameworks
    first = ranked(trials)[0]
    title = FRAMEWORKS[name].style.title
    return f"{title}: the best of {len(trials)} trials is trial {first.number} ({first.label})."


def _log(run: Run, html: Path, drawn: Sequence[Path], result: SearchResult, chosen: Chosen) -> None:
    best = {f"best/{name}": trial.accuracy[name] for name, trial in chosen.own.items()}
    run.log_metrics(best | {"best/validation_accuracy": chosen.common.value or 0.0}, step=0)
    for name in result.record.space.frameworks:
        for number, value in _best_so_far(result.trials, name).items():
            run.log_metrics({f"search/best_{name}": value}, step=number)
    run.set_tags(
        {f"best.{name}": f"trial {trial.number}: {trial.label}" for name, trial in chosen.own.items()}
        | {"search.pruned": result.counts["pruned"], "search.complete": result.counts["complete"]}
    )
    run.describe(markdown(result.record, result.trials, result.sentence))
    run.log_file(html)
    for path in drawn:
        run.log_file(path, "pictures")


def _best_so_far(trials: Sequence[Trial], framework: str) -> Mapping[int, float]:
    found: dict[int, Any] = {}
    for trial in trials:
        if framework in trial.accuracy and trial.state == "complete":
            found[trial.number] = max(trial.accuracy[framework], *found.values(), 0.0)
    return found
