"""A comparison to where people look: a page, pictures, JSON, MLflow, the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison.arm import Arm
from ..comparison.result import TITLES, Comparison
from ..config.schema.tracking import TrackingConfig
from ..core import provenance
from ..core.files import write_json, write_text
from ..core.paths import main_root
from ..data.dataset import Dataset
from ..evaluation import metrics
from ..tracking import views
from ..tracking.delivery import RUN_ID
from ..tracking.journal import is_local
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
) -> list[str]:
    """Write JSON, pictures and `report.html` into `output`, and log all as an MLflow run.

    `dataset`: for the pictures of single examples; None where it is not at hand. `label`: in the run's name, before the
    verdict. `front`: the saved view of curves and the bar of links on top of the MLflow page lead to it. Returns where
    to look, line by line.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "comparison.json", comparison.document())
    write_json(output / "difference.json", _differences(comparison))
    pictures = {}
    for title, figure in _figures(comparison, dataset).items():
        pictures[title] = data_uri(figure)
        save(figure, output / f"{title}.png")
    write_text(output / "report.html", html.page(comparison, pictures, dataset))
    tracker = Tracker(tracking, main_root())
    common = {
        "stage": "compare",
        "verdict": comparison.verdicts["accuracy"].kind,
        "data": comparison.a.manifest.data,
        "data.fingerprint": comparison.a.manifest.fingerprint,
        "model": comparison.a.manifest.model,
        **provenance.origin(),
    }
    name = " ".join(filter(None, ("compare", label, comparison.label("accuracy").split(" (")[0])))
    with tracker.run(name, parent=parent, tags=common | dict(tags or {})) as run:
        flat = {
            f"{what}/{key}": value for what, values in comparison.numbers().items() for key, value in values.items()
        }
        run.log_metrics(flat, step=0)
        for path in sorted(output.iterdir()):
            if path.suffix in (".html", ".json", ".png"):
                run.log_file(path)
        picture = f"![differences](get-artifact?run_uuid={RUN_ID}&path=differences.png)"
        run.describe(f"{markdown(comparison)}\n\n{picture}")
        if front:
            current = [reference for arm in (comparison.a, comparison.b) for reference in arm.runs.values()]
            run.show(current=current, report=True)
    report_at = f"Report: {output / 'report.html'}"
    if is_local(run.reference):
        return [report_at]
    links = {"report": tracker.link(views.run_page(tracker.experiment_id, run.reference, "report.html"))}
    if front:
        links["curves"] = tracker.link(views.view_page(tracker.experiment_id, "curves", charts=True))
        links["leaderboard"] = tracker.link(views.view_page(tracker.experiment_id, "leaderboard"))
    start = [] if tracker.uri.startswith("http") else ["MLflow (`make ui` serves it):"]
    return [report_at, *start, *(f"  {name:11} {link}" for name, link in links.items())]


def _differences(comparison: Comparison) -> dict[str, dict[str, float]]:
    """What `dvc metrics show` puts in a row below those of the two sides, in the same columns."""
    ratios = comparison.speed.ratios if comparison.speed else {}
    return {
        "test": {metric: one.mean for metric, one in comparison.differences.items()},
        "speed_ratio": {kind: ratio.mean for kind, ratio in ratios.items()},
    }


def _figures(comparison: Comparison, dataset: Dataset | None) -> dict[str, Any]:
    arms = (comparison.a, comparison.b)
    rows = [(TITLES[metric], one, comparison.margin(metric)) for metric, one in comparison.differences.items()]
    pooled = {arm.style: _pooled(arm) for arm in arms}
    matrices = {style: metrics.confusion_matrix(*predictions) for style, predictions in pooled.items()}
    classes = dataset.classes if dataset else [str(label) for label in range(comparison.a.outputs.shape[-1])]
    drawn: dict[str, Any] = {
        "differences": figures.differences(rows, comparison.a.style, comparison.b.style),
        "learning_curves": learning_curves({arm.style: arm.history for arm in arms}),
        "reliability": figures.reliability(pooled, comparison.bins),
        "confusion": figures.confusions(matrices, classes),
    }
    if comparison.speed:
        drawn["speed"] = figures.speed(comparison.speed, comparison.a.style, comparison.b.style)
    return drawn


def _pooled(arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (S * N, K) and labels (S * N,) of all seeds."""
    return arm.outputs.reshape(-1, arm.outputs.shape[-1]), np.tile(arm.labels, len(arm.seeds))
