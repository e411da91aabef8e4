"""Publish the proof of equality: JSON, a table, a figure, an MLflow run, the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..config.schema.parity import ParityConfig
from ..config.schema.tracking import TrackingConfig
from ..core import frameworks, provenance
from ..core.files import write_json, write_text
from ..core.paths import main_root, shown
from ..core.progress import console
from ..equality.fairness import differences
from ..equality.levels import LevelResult, ParityResult, loss_deviations
from ..equality.trace import PRECISIONS, Trace
from ..tracking.tracker import Tracker
from .figures.curves import deviations
from .figures.style import save

FILES: Final = ("parity.json", "parity.md", "manifest.json", "deviation.png")
"""The files that `publish_parity` writes."""


def publish_parity(
    result: ParityResult,
    reference: Trace,
    arms: Sequence[Trace],
    limits: ParityConfig,
    output: Path,
    tracking: TrackingConfig,
) -> None:
    """Write `FILES` into `output`, print a line for each level, and log all as an MLflow run."""
    result.write(output / "parity.json")
    write_json(output / "manifest.json", _manifests(reference, arms))
    write_text(output / "parity.md", _table(result.levels))
    _draw(reference, arms, limits, output / "deviation.png")
    for level in result.levels:
        mark = "[green]ok[/]    " if level.passed else "[red]FAILED[/]"
        console.print(f"{mark} {_name(level, arms):18} {level.verdict}", highlight=False)
    _track(result, reference, arms, output, tracking)


def _manifests(reference: Trace, arms: Sequence[Trace]) -> dict[str, Any]:
    """Return the settings and the machine of the reference, every manifest, and where each arm's differs from it."""
    manifests = {trace.framework: trace.manifest.model_dump() for trace in (reference, *arms)}
    reference_manifest = manifests[reference.framework]
    return {
        "settings": reference_manifest["settings"],
        "machine": reference_manifest["machine"],
        "arms": manifests,
        "differences": {arm.framework: _by_section(reference_manifest, manifests[arm.framework]) for arm in arms},
    }


def _by_section(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {section: differences(a[section], b[section]) for section in a}


def _name(level: LevelResult, arms: Sequence[Trace]) -> str:
    """Return the level's name, after the arm's if there are several arms."""
    return f"{level.arm} {level.name}" if len(arms) > 1 else level.name


def _draw(reference: Trace, arms: Sequence[Trace], limits: ParityConfig, path: Path) -> None:
    """Draw the deviation of the loss from the reference's, step by step, for each arm and precision."""
    allowed = {"float64": limits.trajectory_float64, "float32": limits.trajectory_float32}
    lines: dict[str, tuple[np.ndarray, float]] = {}
    for arm in arms:
        for precision in PRECISIONS:
            x, y = (trace.array(f"{precision}/loss") for trace in (reference, arm))
            label = f"{frameworks.find(arm.framework).style.title}, {precision}" if len(arms) > 1 else precision
            if x.shape == y.shape:
                lines[label] = loss_deviations(x, y), allowed[precision]
    title = frameworks.listed([trace.framework for trace in (reference, *arms)])
    save(deviations(lines, f"{title}, step by step"), path)


def _table(levels: Sequence[LevelResult]) -> str:
    """Format the levels as a Markdown table."""
    several = len({level.arm for level in levels}) > 1
    lines = ["| level | result | what |", "|---|---|---|"]
    for level in levels:
        name = f"{level.arm} {level.name}" if several else level.name
        lines.append(f"| {name} | {'ok' if level.passed else '**FAILED**'} | {level.verdict} |")
    return "\n".join(lines) + "\n"


def _track(
    result: ParityResult, reference: Trace, arms: Sequence[Trace], output: Path, tracking: TrackingConfig
) -> None:
    manifest = reference.manifest
    tags = {
        "stage": "parity",
        "folder": shown(output),
        "parity": "passed" if result.passed else "failed",
        "model": manifest.model,
        "data": manifest.data,
        "data.fingerprint": manifest.fingerprint,
        **provenance.origin(),
    }
    with Tracker(tracking, main_root()).run(f"parity {tags['parity']}", tags=tags) as run:
        run.log_params({key: manifest.settings[key] for key in ("model", "train", "data", "trace")})
        run.log_metrics(_metrics(result.levels, arms), step=0)
        for name in FILES:
            run.log_file(output / name)
        run.describe(_table(result.levels))


def _metrics(levels: Sequence[LevelResult], arms: Sequence[Trace]) -> Mapping[str, float]:
    values: dict[str, float] = {}
    for level in levels:
        name = f"parity/{_name(level, arms).replace(' ', '_')}"
        values[f"{name}_passed"] = float(level.passed)
        if level.deviation is not None:
            values[name] = level.deviation
    return values
