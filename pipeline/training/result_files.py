"""The files that training writes; in a DVC stage they are its outputs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..core.files import write_json, write_text
from ..models import backend
from ..models.backend import Classifier
from ..models.manifest import Manifest
from .results import SeedResult, TrainingSummary, curves_csv, history_csv, rows_of
from .spec import RunSpec


def save_model(spec: RunSpec, classifier: Classifier, seed: int) -> Path:
    """Write the trained network and return its folder, see `backend.model_folder`."""
    directory = backend.model_folder(spec.output, seed)
    backend.save(classifier, spec.framework, directory)
    return directory


def manifest_of(spec: RunSpec, classifier: Classifier) -> Manifest:
    """Return the settings and the machine of this arm, which `compare` checks against those of the other arm."""
    settings = {key: value for key, value in spec.resolved().items() if key != "framework"}
    settings |= {"seeds": list(spec.seeds), "parameters": classifier.architecture.parameter_count}
    return Manifest.of(spec.framework, classifier, settings)


def write_results(spec: RunSpec, classifier: Classifier, results: Sequence[SeedResult]) -> None:
    """Write `history.csv`, `curves.csv` (means over the seeds), `manifest.json` and `summary.json`."""
    rows = rows_of(results)
    history, curves, summary = history_csv(rows), curves_csv(rows, spec.train.epochs), TrainingSummary.of(results)
    write_text(spec.output / "history.csv", history)
    write_text(spec.output / "curves.csv", curves)
    write_json(spec.output / "summary.json", asdict(summary))
    manifest_of(spec, classifier).write(spec.output / "manifest.json")
