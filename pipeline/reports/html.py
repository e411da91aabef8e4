"""The page of a comparison: one HTML file with its own style and pictures, which needs no network."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..comparison.arm import Arm
from ..comparison.result import TITLES, Comparison
from ..comparison.verdict import UNITS
from ..core.frameworks import find
from ..data.dataset import Dataset
from ..equality.fairness import differences
from ..evaluation import metrics
from ..evaluation.summary import summarise
from ..exports.result import ExportResult
from ..exports.table import rows_of
from ..models.manifest import Manifest

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_MOST_SHOWN = 48
"""Images in the gallery of disagreements."""


def page(
    comparison: Comparison,
    pictures: Mapping[str, str],
    dataset: Dataset | None,
    exports: Sequence[ExportResult] = (),
) -> str:
    """Render the HTML of a comparison.

    `pictures`: `data:` addresses by name; `dataset`: for the gallery of disagreements, which is left out without it;
    `exports`: of the arms, for the table of files for production, which is left out without them.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    manifest = comparison.a.manifest
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        comparison=comparison,
        a=comparison.a,
        b=comparison.b,
        pictures=pictures,
        titles=TITLES,
        metrics=[_metric(comparison, metric) for metric in comparison.differences],
        gallery=_gallery(comparison, dataset) if dataset else None,
        exports=[(find(result.framework).style.title, rows_of(result)) for result in exports],
        settings=_settings(manifest),
        versions=_versions(comparison),
        machine=manifest.machine,
        differing=differences(manifest.settings, comparison.b.manifest.settings),
        data=manifest.settings["data"],
        model=manifest.model,
    )


def _metric(comparison: Comparison, metric: str) -> dict[str, Any]:
    difference, margin, unit = comparison.differences[metric], comparison.margin(metric), UNITS[metric]
    low, high = unit.ends(difference.interval())
    wins, suffix = comparison.wins[metric], "%" if unit.scale == 100 else ""
    return {
        "title": TITLES[metric],
        "arms": [_spread(values, unit.scale, unit.decimals, suffix) for values in (difference.a, difference.b)],
        "difference": unit.signed(difference.mean),
        "interval": f"{low} to {high}",
        "unit": unit.name,
        "p_value": _p(difference.p_value),
        "p_equivalence": _p(difference.p_equivalence(margin)),
        "margin": f"±{unit.scale * margin:g}",
        "wins": f"{wins.probability:.0%}",
        "wins_interval": f"{wins.low:.0%} to {wins.high:.0%}",
        "verdict": comparison.verdicts[metric],
        "label": comparison.label(metric),
        "sentence": comparison.sentence(metric),
    }


def _gallery(comparison: Comparison, dataset: Dataset) -> list[dict[str, Any]]:
    """Return the examples that the arms predict differently under at least one seed, those with most such seeds first.

    Among equals, the larger difference of the probabilities of the actual class comes first.
    """
    a, b = comparison.a, comparison.b
    predicted_a, predicted_b = (
        np.stack([metrics.predicted_labels(outputs) for outputs in arm.outputs]) for arm in (a, b)
    )
    disagreeing_seeds = (predicted_a != predicted_b).sum(axis=0)
    p_a, p_b = (_probabilities(arm) for arm in (a, b))
    actual = np.arange(len(a.labels)), a.labels
    order = np.lexsort((-np.abs(p_a[actual] - p_b[actual]), -disagreeing_seeds))
    order = order[disagreeing_seeds[order] > 0]
    images = dataset.split("test").images
    entries = []
    for example in order[:_MOST_SHOWN]:
        label = int(a.labels[example])
        majorities = [
            _majority(arm, predicted[:, example], p[example], label, dataset.classes)
            for arm, predicted, p in ((a, predicted_a, p_a), (b, predicted_b, p_b))
        ]
        entries.append(
            {
                "image": _png(images[example]),
                "label": dataset.classes[label],
                "predictions": majorities,
                "seeds": f"{disagreeing_seeds[example]} of {len(a.seeds)}",
                "example": int(example),
                "total": len(order),
            }
        )
    return entries


def _majority(
    arm: Arm, predicted: np.ndarray, probabilities: np.ndarray, label: int, classes: Sequence[str]
) -> dict[str, Any]:
    """Return the class that most seeds predict for one example: `predicted` int64 (S,), `probabilities` (K,)."""
    majority = int(np.bincount(predicted).argmax())
    return {
        "style": arm.style,
        "class": classes[majority],
        "right": majority == label,
        "p": f"{probabilities[majority]:.0%}",
    }


def _probabilities(arm: Arm) -> np.ndarray:
    """Return the mean probabilities over the seeds, float64 (N, K)."""
    return np.asarray(np.mean([np.exp(metrics.log_probabilities(outputs)) for outputs in arm.outputs], axis=0))


def _png(image: np.ndarray) -> str:
    """Encode uint8 (height, width, channels) as a `data:` address; grey images dark on white."""
    buffer = io.BytesIO()
    grey = image.shape[-1] == 1
    Image.fromarray(255 - image[..., 0] if grey else image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _settings(manifest: Manifest) -> list[tuple[str, str]]:
    train = manifest.settings["train"]
    optimizer = ", ".join(f"{k} {v}" for k, v in train["optimizer"].items() if k != "name")
    layers = " → ".join(_layer(layer) for layer in manifest.settings["model"]["layers"])
    return [
        ("network", f"{manifest.model}: {layers}"),
        ("parameters", f"{manifest.parameters:,}"),
        ("data", f"{manifest.data}, fingerprint {manifest.fingerprint}"),
        ("training", f"{train['epochs']} epochs, batches of {train['batch_size']}, {train['precision']}"),
        ("optimizer", f"{train['optimizer']['name']}: {optimizer}"),
        ("schedule", ", ".join(f"{k} {v}" for k, v in train["schedule"].items() if k != "name" or v)),
        ("deterministic", "yes" if train["deterministic"] else "no"),
    ]


def _layer(layer: Mapping[str, Any]) -> str:
    sizes = {k: v for k, v in layer.items() if k in ("filters", "kernel_size", "units", "size", "rate", "stride")}
    text = " ".join(f"{v}" if k in ("filters", "units") else f"{k.split('_')[0]} {v}" for k, v in sizes.items() if v)
    activation = layer.get("activation")
    return " ".join(filter(None, (layer["type"], text, f"({activation})" if activation else "")))


def _versions(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the rows of the table of versions and machine facts: name, A, B."""
    a, b = (arm.manifest for arm in (comparison.a, comparison.b))
    names = {**a.framework.versions, **b.framework.versions}
    rows: list[tuple[str, ...]] = []
    for name in names:
        rows.append((name, *(str(m.framework.versions.get(name, "-")) for m in (a, b))))
    rows.append(("execution", *(str(m.framework.execution) for m in (a, b))))
    keys = ("cpu", "cores", "device", "threads", "python", "numpy")
    return [*rows, *((key, *(str(getattr(m.machine, key)) for m in (a, b))) for key in keys)]


def _spread(values: Any, scale: float, decimals: int, suffix: str) -> str:
    """Format mean and standard deviation; for one value the value alone."""
    summary = summarise(values)
    text = f"{scale * summary.mean:.{decimals}f}{suffix}"
    return text if summary.n == 1 else f"{text} ± {scale * summary.std:.{decimals}f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
