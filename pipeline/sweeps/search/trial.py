"""One trial: a point of the space, trained in every framework of the search, one after another."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from threading import Lock

from ...config.compose import compose_job
from ...config.hydra_compat import Source
from ...config.schema.whole import Config
from ...core.errors import UserError
from ...core.files import read_json, write_json
from ...core.turns import is_waited_for, turn
from ...search.record import SearchRecord
from ...search.report import Ended, TrialPart
from ...search.space import Space, Value
from ...search.study import Study, Trial
from ...training.results import TrainingSummary
from ...training.spec import SweepMembership
from ..plan import check
from ..pool import Train

_COMPOSING = Lock()  # Hydra has one state for all threads


def run_trial(folder: Path, number: int, train: Train) -> None:
    """Draw the point of a trial, unless it has one, and train what is left of it; do nothing if it is finished.

    `folder`: that of the search, which says everything else. A trial whose training fails stays open, and the same
    command trains it again. Raises `KeyboardInterrupt` if a training was interrupted.
    """
    record = SearchRecord.read(folder)
    with turn_of(folder / str(number), f"trial {number}"):
        study = Study(folder, record, number)
        if study.trial(number).finished:
            return
        trial = study.draw(number)
        try:
            configs = {name: config_of(record, trial.point, name) for name in record.space.frameworks}
            keys = {name: check(config) for name, config in configs.items()}
        except UserError as error:
            study.end(number, failed=" ".join(str(error).split()))
            print(f"trial {number}: its point is no configuration: {error}", flush=True)
            return
        if twin := _twin(study, trial, configs):
            _take_over(study, trial, twin)
            return
        accuracies = []
        for position, name in enumerate(in_turn(record.space.frameworks, number)):
            output = folder / str(number) / name
            membership = SweepMembership(record.name, record.parent, number, trial.label, keys[name])
            ended = _train(output, configs[name], membership, _part(folder, record, trial, position), train)
            if ended is None:
                return
            if ended.state != "complete":
                study.note(number, name, epochs=ended.epochs)
                study.end(number, pruned=f"{name}: {ended.reason}")
                return
            summary = TrainingSummary(**read_json(output / "summary.json", "start the search again"))
            scores = summary.validation_accuracy, summary.validation_loss
            study.note(number, name, epochs=ended.epochs, scores=scores)
            accuracies.append(summary.validation_accuracy)
        study.end(number, sum(accuracies) / len(accuracies))


def in_turn(frameworks: Sequence[str], number: int) -> list[str]:
    """Return the order in which a trial trains the frameworks: each comes first in every k-th trial.

    A pruned trial has trained the first for longer than the others, so that none may always be the first.
    """
    first = number % len(frameworks)
    return [*frameworks[first:], *frameworks[:first]]


def config_of(
    record: SearchRecord, point: Mapping[str, Value], framework: str, seeds: Sequence[int] | None = None
) -> Config:
    """Compose the configuration of a point; `seeds`: in place of those of the search. Raises `UserError`."""
    config = compose_point(record.space, record.hydra, record.source, point, framework)
    return config.model_copy(update={"seeds": list(seeds)}) if seeds else config


def compose_point(
    space: Space, hydra: Sequence[str], source: Source, point: Mapping[str, Value], framework: str
) -> Config:
    """Compose the configuration of a point; `hydra`: overrides of Hydra's own settings. Raises `UserError`."""
    return _compose((*hydra, *space.overrides(point), f"framework={framework}"), source)


def _compose(overrides: tuple[str, ...], source: Source) -> Config:
    with _COMPOSING:
        return _composed(overrides, source)


@lru_cache
def _composed(overrides: tuple[str, ...], source: Source) -> Config:
    """Compose a configuration once: Hydra takes a tenth of a second, and a chosen point is asked for many times."""
    config, _ = compose_job(overrides, source, 0)
    return config


def prepare_folder(output: Path, membership: SweepMembership) -> None:
    """Make the folder of a job, and say in it what the job belongs to."""
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "job.json", asdict(membership))


@contextmanager
def turn_of(folder: Path, label: str) -> Iterator[None]:
    """Let one process at a time run a trial: one of a killed search may still be ending."""
    place = folder / ".turn"
    with turn(place, label):
        try:
            yield
        finally:
            if not is_waited_for(place):
                shutil.rmtree(place, ignore_errors=True)


def _part(folder: Path, record: SearchRecord, trial: Trial, position: int) -> TrialPart:
    point = {key: str(value) for key, value in trial.point.items()}
    return TrialPart(
        search=str(folder.resolve()), number=trial.number, position=position, epochs=record.epochs, point=point
    )


def _train(output: Path, config: Config, membership: SweepMembership, part: TrialPart, train: Train) -> Ended | None:
    """Train one framework, unless that is done; None: the training failed."""
    if ended := Ended.read(output):
        return ended
    prepare_folder(output, membership)
    part.write(output)
    train(config, output)
    return Ended.read(output)


def _twin(study: Study, trial: Trial, configs: Mapping[str, Config]) -> Trial | None:
    """Return a finished trial at the same point, if training gives the same bits again."""
    if not all(config.train.deterministic for config in configs.values()):
        return None
    finished = (other for other in study.trials() if other.state in ("complete", "pruned"))
    return next((other for other in finished if _same(other.point, trial.point) and other.epochs), None)


def _same(a: Mapping[str, Value], b: Mapping[str, Value]) -> bool:
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _take_over(study: Study, trial: Trial, twin: Trial) -> None:
    reason = f"the point of trial {twin.number}"
    print(f"trial {trial.number}: {reason}, whose results are taken over", flush=True)
    for name, accuracy in twin.accuracy.items():
        study.note(trial.number, name, epochs=0, scores=(accuracy, twin.loss[name]))
    if twin.state == "pruned":
        study.end(trial.number, pruned=f"{reason}: {twin.reason}")
    else:
        study.end(trial.number, twin.value)
