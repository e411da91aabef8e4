"""Send finished jobs to a store that lacks their runs, from the files in their folders, instead of training again."""

import tempfile
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from ..config.compose import text_of
from ..core.errors import UserError
from ..core.files import read_json, read_text
from ..core.paths import main_root
from ..data.cache import obtain
from ..evaluation.summary import percent
from ..models import backend
from ..models.manifest import Manifest
from ..tracking import journal as journals
from ..tracking.reader import find_runs, has_run
from ..tracking.references import RunReferences
from ..tracking.runs import Run
from ..tracking.store import configured_store
from ..tracking.tracker import Tracker
from ..tracking.views import in_sweep, sweep_tags
from ..training.results import METRICS, SPLITS, HistoryRow, history_csv, read_history
from ..training.run_logging import log_configuration
from ..training.run_tags import tags_of_spec
from ..training.spec import RunSpec
from . import cache
from .plan import SweepJob

_ADVICE = "sweep.rerun=true trains it again"
_ASKED_AT_ONCE: Final = 200


def present(tracker: Tracker, folders: Iterable[Path]) -> frozenset[str]:
    """Return which runs of the finished jobs in these folders the store certainly has, asked for in few requests.

    A run that is missing here may be there all the same: in another experiment, or not finished.
    """
    named = (run for folder in folders for run in RunReferences.read(folder / "runs.json", _ADVICE).runs)
    ids = [] if tracker.unreachable else [run for run in named if not journals.is_local(run)]
    found: set[str] = set()
    for start in range(0, len(ids), _ASKED_AT_ONCE):
        listed = ", ".join(f"'{run}'" for run in ids[start : start + _ASKED_AT_ONCE])
        with suppress(UserError):  # each is asked for alone, then
            found |= {run.id for run in find_runs(tracker, f"attributes.run_id IN ({listed})")}
    return frozenset(found)


def references_of(tracker: Tracker, folder: Path, job: SweepJob, present: Set[str] = frozenset()) -> list[str]:
    """Return references of a finished job's runs in this store; empty if it lacks the run of a seed.

    `present`: runs that it is known to have, see the function of this name.

    `runs.json` names the runs in the store that the job was trained under; runs that were sent again are searched by
    the job's key. If the store does not answer, it is taken to have those that `runs.json` names.
    """
    references = RunReferences.read(folder / "runs.json", _ADVICE)
    if tracker.unreachable or all(seed.run in present or _has(tracker, seed.run) for seed in references.seeds.values()):
        return references.runs
    found = find_runs(tracker, f"tags.`sweep.key` = '{job.key}' and tags.stage = 'train' and tags.seed != ''")
    by_seed = {int(run.tags["seed"]): run.id for run in found}
    return list(by_seed.values()) if set(by_seed) >= set(job.config.seeds) else []


def lacks_group(tracker: Tracker, folder: Path, references: Sequence[str], present: Set[str] = frozenset()) -> bool:
    """Return whether the store lacks the run above a finished job's seeds.

    `references`, `present`: see `references_of`.
    """
    group = RunReferences.read(folder / "runs.json", _ADVICE).group
    if not group or group not in references or group in present or tracker.unreachable:
        return False
    return not _has(tracker, group)


def tops_of(folder: Path, references: Sequence[str]) -> Sequence[str]:
    """Return those of a job's runs that are directly below the sweep's: the run above the seeds, or the seeds'."""
    group = RunReferences.read(folder / "runs.json", _ADVICE).group
    return [group] if group and group in references else references


def parent_of(tracker: Tracker, sweep: str) -> str | None:
    """Return the id of a finished sweep's run; None if the store lacks it, or does not answer."""
    if tracker.unreachable:
        return None
    found = find_runs(tracker, f"{in_sweep(sweep)} and tags.stage = 'sweep'")
    return found[0].id if found else None


def _has(tracker: Tracker, reference: str) -> bool:
    if not journals.is_local(reference):
        return has_run(tracker, reference)
    root, uid = main_root(), journals.uid_of(reference)
    if folder := journals.folder_of(root, uid):
        return journals.store_of(folder) == configured_store(root)  # else it goes to the store it was meant for
    return bool(find_runs(tracker, f"tags.journal = '{uid}'"))


def resend(tracker: Tracker, job: SweepJob, folder: Path, parent: str) -> None:
    """Log a finished job to the store: a run for each seed, below `parent`.

    Settings, scores by epoch, test scores, predictions, pictures and weights are logged. The curve of every step and
    MLflow's own format of the model are not among the files. Raises `UserError` if a file is missing.
    """
    sweeps = cache.sweeps_of(folder)
    membership = job.membership(sweeps[-1], parent)
    dataset = obtain(job.config.data, main_root())
    spec = RunSpec.of(job.config, dataset=dataset, output=folder, sweep=membership, snapshot=text_of(job.config))
    earlier = RunReferences.read(folder / "runs.json", _ADVICE)
    history = read_history(read_text(folder / "history.csv", _ADVICE))
    for position, seed in enumerate(spec.seeds):
        tags = _tags(spec, seed, sweeps) | {"origin.run": earlier.seeds[seed].run}
        with tracker.run(f"{spec.label} s{seed}", parent=parent, tags=tags) as run:
            _log_training(run, spec, seed, [row for row in history if row.seed == seed])
            _log_evaluation(run, spec, seed, position)


def _tags(spec: RunSpec, seed: int, sweeps: list[str]) -> dict[str, object]:
    manifest = Manifest.read(spec.output / "manifest.json", _ADVICE)
    return {
        **tags_of_spec(spec, seed),
        **sweep_tags(sweeps),
        "device.name": manifest.machine.cpu if manifest.machine.device == "cpu" else manifest.machine.device,
        "device.threads": manifest.machine.threads,
        "execution": manifest.framework.execution,
        "weights.digest": read_json(backend.model_folder(spec.output, seed) / "classifier.json", _ADVICE)["weights"],
        "python": manifest.machine.python,
    }


def _log_training(run: Run, spec: RunSpec, seed: int, rows: list[HistoryRow]) -> None:
    seeds = {"seeds": list(spec.seeds)} if len(spec.seeds) == 1 else {}
    run.log_params(spec.resolved() | seeds | {"seed": seed, "parameters": spec.architecture.parameter_count})
    examples = spec.dataset.facts.examples["train"]
    for row in rows:
        values = {f"{row.split}/{name}": getattr(row, name) for name in METRICS if row.split in SPLITS}
        if row.seconds:
            values |= {
                "time/epoch_seconds": row.seconds,
                "throughput/train_images_per_second": round(examples / row.seconds),
            }
        if row.split == "validation" and row.epoch == spec.train.epochs:
            values["validation/accuracy_percent"] = percent(row.accuracy)
        run.log_metrics(values, step=row.epoch)
    run.log_file(spec.output / "manifest.json")
    log_configuration(run, spec)
    run.log_text(history_csv(rows), "history.csv")
    for path in sorted(backend.model_folder(spec.output, seed).iterdir()):
        run.log_file(path, "model")


def _log_evaluation(run: Run, spec: RunSpec, seed: int, position: int) -> None:
    """Log test scores, predictions and pictures; `position`: of the seed in the arrays of `predictions.npz`."""
    scores = read_json(spec.output / "scores.json", _ADVICE)["seeds"][str(seed)]
    scores |= {"accuracy_percent": percent(scores["accuracy"]), "error_percent": 100 * (1 - scores["accuracy"])}
    run.log_metrics({f"test/{name}": value for name, value in scores.items()}, step=0)
    with np.load(spec.output / "predictions.npz", allow_pickle=False) as file, tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "predictions.npz"
        np.savez(path, logits=file["logits"][position], labels=file["labels"])
        run.log_file(path, "evaluate")
    plots = spec.output / "plots" / (f"seed_{seed}" if len(spec.seeds) > 1 else ".")
    for path in sorted(plots.glob("*.png")):
        run.log_file(path, "evaluate")
