"""Publish a comparison: a page, figures, JSON and an MLflow run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison.arm import Arm
from ..comparison.result import TITLES, Comparison
from ..config.schema.tracking import TrackingConfig
from ..core import provenance
from ..core.files import write_json, write_text
from ..core.paths import main_root, shown
from ..data.dataset import Dataset
from ..evaluation import metrics
from ..exports.result import ExportResult
from ..tracking import views
from ..tracking.delivery import RUN_ID
from ..tracking.journal import is_local
from ..tracking.runs import Run
from ..tracking.tracker import Tracker
from . import html
from .figures import comparison as figures
from .figures.curves import learning_curves
from .figures.style import data_uri, save
from .table import markdown


def publish(
    comparison: Comparison,
    output: Path,
    dataset: Dataset | None,
    tracking: TrackingConfig,
    *,
    label: str = "",
    parent: str | None = None,
    tags: Mapping[str, Any] | None = None,
    front: bool = False,
    exports: Sequence[ExportResult] = (),
) -> list[str]:
    """Write JSON, figures and `report.html` into `output`, and log all as an MLflow run.

    `dataset`: for the images that the arms predict differently; None if it is not on this machine. `label`: goes into
    the run's name, before the verdict; empty: network and data. `parent`: id of the parent run. `front`: have the saved
    view of curves and the bar of links on the experiment's page lead to this run. `exports`: of the arms.

    Returns the lines that tell where to look.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "comparison.json", comparison.document())
    write_json(output / "difference.json", _differences(comparison))
    pictures = {}
    for name, figure in _figures(comparison, dataset).items():
        pictures[name] = data_uri(figure)
        save(figure, output / f"{name}.png")
    write_text(output / "report.html", html.page(comparison, pictures, dataset, exports))
    tracker = Tracker(tracking, main_root())
    what = label or f"{comparison.a.manifest.model} {comparison.a.manifest.data}"
    run_name = f"compare {what}: {comparison.label('accuracy').split(' (')[0]}"
    with tracker.run(
        run_name, parent=parent, tags={"folder": shown(output)} | _tags(comparison) | dict(tags or {})
    ) as run:
        _log(run, comparison, output)
        if front:
            current = [reference for arm in (comparison.a, comparison.b) for reference in arm.runs.values()]
            run.show(current=current, report=True)
    return [f"Report: {output / 'report.html'}", *_links(tracker, run.reference, front)]


def _tags(comparison: Comparison) -> dict[str, Any]:
    manifest = comparison.a.manifest
    return {
        "stage": "compare",
        "verdict": comparison.verdicts["accuracy"].kind,
        "data": manifest.data,
        "data.fingerprint": manifest.fingerprint,
        "model": manifest.model,
        "compared": " ".join(reference for arm in (comparison.a, comparison.b) for reference in arm.runs.values()),
        **provenance.origin(),
    }


def _log(run: Run, comparison: Comparison, output: Path) -> None:
    run.log_metrics(
        {f"{name}/{key}": value for name, values in comparison.numbers().items() for key, value in values.items()},
        step=0,
    )
    for path in sorted(output.iterdir()):
        if path.suffix in (".html", ".json", ".png"):
            run.log_file(path)
    picture = f"![differences](get-artifact?run_uuid={RUN_ID}&path=differences.png)"
    run.describe(f"{markdown(comparison)}\n\n{picture}")


def _links(tracker: Tracker, reference: str, front: bool) -> list[str]:
    """Return the links into MLflow, line by line; none as long as MLflow does not have the run."""
    if is_local(reference):
        return []
    links = {"report": tracker.link(views.run_page(tracker.experiment_id, reference, "report.html"))}
    if front:
        links["curves"] = tracker.link(views.view_page(tracker.experiment_id, "curves", charts=True))
        links["leaderboard"] = tracker.link(views.view_page(tracker.experiment_id, "leaderboard"))
    heading = [] if tracker.uri.startswith("http") else ["MLflow (`make ui` serves it):"]
    return [*heading, *(f"  {name:11} {link}" for name, link in links.items())]


def _differences(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Return what `dvc metrics show` prints as a row below those of the two arms, in the same columns."""
    ratios = comparison.speed.ratios if comparison.speed else {}
    return {
        "test": {metric: difference.mean for metric, difference in comparison.differences.items()},
        "speed_ratio": {kind: ratio.mean for kind, ratio in ratios.items()},
    }


def _figures(comparison: Comparison, dataset: Dataset | None) -> dict[str, Any]:
    """Draw every figure of the page, by name."""
    arms = (comparison.a, comparison.b)
    rows = [(TITLES[metric], value, comparison.margin(metric)) for metric, value in comparison.differences.items()]
    pooled = {arm.style: _pooled(arm) for arm in arms}
    matrices = {style: metrics.confusion_matrix(*predictions) for style, predictions in pooled.items()}
    classes = dataset.classes if dataset else [str(label) for label in range(comparison.a.outputs.shape[-1])]
    figures_by_name: dict[str, Any] = {
        "differences": figures.differences(rows, comparison.a.style, comparison.b.style),
        "learning_curves": learning_curves({arm.style: arm.history for arm in arms}),
        "reliability": figures.reliability(pooled, comparison.bins),
        "confusion": figures.confusions(matrices, classes),
    }
    if comparison.speed:
        figures_by_name["speed"] = figures.speed(comparison.speed, comparison.a.style, comparison.b.style)
    return figures_by_name


def _pooled(arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs (S * N, K) and labels (S * N,) of all seeds."""
    return arm.outputs.reshape(-1, arm.outputs.shape[-1]), np.tile(arm.labels, len(arm.seeds))
