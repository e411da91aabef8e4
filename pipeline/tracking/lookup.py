"""Find runs by whatever names them: an id, a name, a model, a version of the registry, a DVC experiment, a commit."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..core.errors import UserError
from ..core.paths import shown
from ..core.provenance import RERUN
from .lifecycle import active_model, active_run, version_of
from .references import RunReferences

_ID: Final = re.compile(r"(?:runs:/)?([0-9a-f]{32})")
_MODEL: Final = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})")
_ALIAS: Final = re.compile(r"(?:models:/)?(.+)@([^@/]+)")
_VERSION: Final = re.compile(r"(?:models:/)?(.+)/(\d+)")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,40}")
ALLOWED: Final = (
    "the id or name of a run, the folder of its results, a model's id, <name>/<version> or <name>@<alias> of the "
    "registry, a DVC experiment, a commit, a sweep"
)


@dataclass(frozen=True)
class RunRecord:
    """A run with what MLflow knows of it."""

    id: str
    name: str
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    experiment: str
    """Id of its experiment."""
    started: int
    """Milliseconds since 1970."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each metric."""

    @classmethod
    def of(cls, run: Any) -> "RunRecord":
        """Create it from a run of MLflow's client."""
        info, data = run.info, run.data
        name, tags = info.run_name or info.run_id, dict(data.tags)
        params, metrics = dict(data.params), dict(data.metrics)
        return cls(info.run_id, name, info.status, info.experiment_id, info.start_time, tags, params, metrics)

    @property
    def seed(self) -> int | None:
        """The seed that it trained; None: it is no training of one seed."""
        text = self.tags.get("seed", "")
        return int(text) if self.tags.get("stage") == "train" and text.isdigit() else None

    @property
    def parent(self) -> str | None:
        """The id of the run above it."""
        return self.tags.get("mlflow.parentRunId")


@dataclass(frozen=True)
class Match:
    """What a reference names."""

    kind: str
    """What the reference was taken for, such as `run` or `DVC experiment`."""
    runs: Sequence[RunRecord]
    """At least one, the newest first."""
    note: str = ""
    """What a reader should know of the choice; empty: nothing."""


def resolve(client: Any, reference: str) -> Match:
    """Return the runs that a reference names. `client`: an `MlflowClient`. Raises `UserError` if it names none."""
    if not reference.strip():
        raise UserError(f"the reference {reference!r} names nothing; allowed: {ALLOWED}")
    if found := _ID.fullmatch(reference):
        return _by_id(client, found[1], "run")
    if found := _MODEL.fullmatch(reference):
        model = active_model(client, found[1])
        if model is None:
            raise UserError(f"{reference}: MLflow has no such model")
        return _by_id(client, model.source_run_id, f"model {model.name}")
    for pattern, ask in ((_ALIAS, client.get_model_version_by_alias), (_VERSION, client.get_model_version)):
        found = pattern.fullmatch(reference)
        version = version_of(ask, *found.groups()) if found else None
        if version is not None:
            return _by_id(client, version.run_id, f"version {version.version} of the model {version.name}")
    if (Path(reference) / "runs.json").is_file():
        stored = RunReferences.read(Path(reference) / "runs.json", "train it again")
        runs = entered(client, stored.runs)
        if not runs:
            raise UserError(f"{reference}: the runs of its runs.json are not in this store")
        return Match("folder", runs)
    if (Path(reference) / "comparison.json").is_file():
        document = json.loads((Path(reference) / "comparison.json").read_text(encoding="utf-8"))
        if not (runs := comparisons(client, document)):
            raise UserError(f"{reference}: the comparison in this folder is in no run of this store")
        return Match("folder", runs[:1], f"the newest of {len(runs)} runs of this comparison" if len(runs) > 1 else "")
    return _by_text(client, reference)


def comparisons(client: Any, document: Any) -> list[RunRecord]:
    """Return the runs of `compare` with the same first seeds, the newest first; `document`: a `comparison.json`."""
    try:
        ids = [next(iter(document[side]["runs"].values())) for side in ("a", "b")]
    except (KeyError, TypeError, StopIteration):
        return []
    condition = " and ".join(f"tags.compared LIKE '%{run}%'" for run in ids)
    return search(client, f"tags.stage = 'compare' and {condition}")


def entered(client: Any, ids: Sequence[str]) -> list[RunRecord]:
    """Return the runs of these ids; if the store has none, those that their restored models were entered as."""
    direct = [RunRecord.of(run) for each in ids if (run := active_run(client, each))]
    return direct or [run for each in ids for run in search(client, f"tags.`origin.run` = '{each}'")]


def _by_text(client: Any, text: str) -> Match:
    quoted = _quoted(text)
    named = search(client, f"attributes.run_name = {quoted}") if quoted else []
    if named := [run for run in named if run.tags.get("dvc.stage") != RERUN or text.startswith(RERUN)]:
        note = f"the newest of {len(named)} runs of this name" if len(named) > 1 else ""
        return Match("name", named[:1], note)
    if quoted and (runs := search(client, f"tags.`dvc.exp` = {quoted}")):
        return Match("DVC experiment", runs)
    if _COMMIT.fullmatch(text) and (runs := search(client, f"tags.`git.commit` LIKE '{text}%'")):
        return Match("commit", runs)
    if quoted and (runs := search(client, f"tags.sweep = {quoted}")):
        return Match("sweep", runs)
    folder = _quoted(shown(Path(text))) if Path(text).is_dir() else ""
    if folder and (runs := search(client, f"tags.folder = {folder}")):  # of a sweep, the data, parity
        return Match("folder", runs[:1], f"the newest of {len(runs)} runs of this folder" if len(runs) > 1 else "")
    raise UserError(f"{text}: names no run in this store; allowed: {ALLOWED}")


def _quoted(text: str) -> str:
    """Return a text as a filter takes it; empty: MLflow's filters cannot hold it."""
    for mark in "'\"":
        if mark not in text:
            return f"{mark}{text}{mark}"
    return ""


def _by_id(client: Any, run_id: str | None, kind: str) -> Match:
    run = active_run(client, run_id) if run_id else None
    if run is None:
        raise UserError(f"{kind} {run_id or 'without a run'}: MLflow has no such run, or it is deleted")
    return Match(kind, [RunRecord.of(run)])


def search(client: Any, condition: str) -> list[RunRecord]:
    """Return the runs of all experiments that match a filter, the newest first. Raises what MLflow raises."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(map(RunRecord.of, runs_in(client, experiments, condition)))


def runs_in(client: Any, experiments: Sequence[str], condition: str) -> Iterator[Any]:
    """Yield the runs of these experiments that match a filter, the newest first, as MLflow's client returns them."""
    token = None
    while True:
        page = client.search_runs(
            experiments, condition, max_results=1000, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def seeds_of(client: Any, runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs of single seeds among these runs and all that they hold or compare, the newest first."""
    found: dict[str, RunRecord] = {}
    waiting = list(runs)
    seen: set[str] = set()
    while waiting:
        run = waiting.pop(0)
        if run.id in seen:
            continue
        seen.add(run.id)
        if run.seed is not None:
            found[run.id] = run
        else:
            waiting += [*below(client, run), *compared(client, run)]
    return sorted(found.values(), key=lambda run: run.started, reverse=True)


def compared(client: Any, run: RunRecord) -> list[RunRecord]:
    """Return the runs that a run of `compare` compares."""
    return entered(client, run.tags.get("compared", "").split())


def below(client: Any, run: RunRecord) -> list[RunRecord]:
    """Return the runs directly below a run, the newest first."""
    return search(client, f"tags.`mlflow.parentRunId` = '{run.id}'")


def series(client: Any, run_id: str, metric: str) -> list[tuple[int, float]]:
    """Return (step, value) of every point of a metric, in the order of steps; empty: the run has none."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, metric))


def artifact(client: Any, run_id: str, path: str, folder: Path) -> Path | None:
    """Copy an artifact of a run into the folder; return the copy, None if the run has none of that path."""
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return Path(client.download_artifacts(run_id, path, str(folder)))
    except (MlflowException, OSError):
        return None


def models_of(client: Any, run: RunRecord) -> list[Any]:
    """Return the models that a run has logged, as MLflow describes them."""
    return list(client.search_logged_models([run.experiment], f"source_run_id = '{run.id}'"))


def model_files(client: Any, run: RunRecord, name: str, folder: Path) -> Path | None:
    """Return a file of the model that a run has logged, by its name; None: it has no model, or none with this file."""
    import mlflow
    from mlflow.exceptions import MlflowException

    for model in models_of(client, run):
        try:
            stored = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path=str(folder)))
        except (MlflowException, OSError):
            continue
        if found := next(iter(sorted(stored.rglob(name))), None):
            return found
    return artifact(client, run.id, f"model/{name}", folder)  # of a job whose files were sent later
