"""One arm of a comparison: its predictions, its training history, its settings and its machine."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import read_text
from ..core.frameworks import SeriesStyle, find
from ..evaluation import metrics
from ..models.manifest import Manifest
from ..tracking.references import RunReferences
from ..training.results import HistoryRow, read_history
from .verdict import RESOLUTION

_ADVICE = "run `dvc repro`"


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison. Row s of `outputs` belongs to `seeds[s]`."""

    style: SeriesStyle
    seeds: tuple[int, ...]
    outputs: np.ndarray
    """Outputs of the last layer on the test split, float32 (seeds, examples, classes)."""
    labels: np.ndarray
    """Actual classes of the test split, int64 (examples,)."""
    history: Sequence[HistoryRow]
    """Loss and accuracy of every seed, epoch and split."""
    manifest: Manifest
    """Settings, versions and machine, as `train` wrote them."""
    runs: Mapping[int, str]
    """Ids of the MLflow runs by seed; empty if the arm has none."""

    def with_seeds(self, seeds: Sequence[int]) -> "Arm":
        """Return the arm with only these of its seeds, in this order. Raises `ValueError` if it lacks one."""
        rows = [self.seeds.index(seed) for seed in seeds]
        history = [row for row in self.history if row.seed in set(seeds)]
        runs = {seed: run for seed, run in self.runs.items() if seed in set(seeds)}
        return replace(self, seeds=tuple(seeds), outputs=self.outputs[rows], history=history, runs=runs)

    @property
    def title(self) -> str:
        """The arm's name in every table, figure and page."""
        return self.style.title

    @property
    def computes(self) -> str:
        """The framework as it was asked to compute: `TensorFlow compiled (XLA), with this project's adam, max_pool`."""
        framework, settings = find(self.manifest.framework.name), self.manifest.settings
        execution, device = self.manifest.framework.execution, self.manifest.machine.device
        replaced = framework.ours + (framework.ours_compiled if execution == "compiled" or device != "cpu" else ())
        compiler = f" ({framework.compiler})" if execution == "compiled" and framework.compiler else ""
        used = dict.fromkeys([settings["train"]["optimizer"]["name"], *_layer_types(settings["model"]["layers"])])
        ours = [name for name in used if name in replaced]
        parts = f"this project's {', '.join(ours)}" if ours else "all parts its own"
        return f"{self.title} {execution}{compiler}, with {parts}"

    @cached_property
    def learned(self) -> tuple[int, ...]:
        """The seeds under which the arm knows more than the shares of the classes in the test split.

        That is a higher accuracy than that of the most frequent class, or a lower log-loss than their entropy, by two
        standard errors over the examples.
        """
        shares = np.bincount(self.labels) / len(self.labels)
        most, entropy = shares.max(), -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))
        chance = most + 2 * (most * (1 - most) / len(self.labels)) ** 0.5
        learned = []
        for seed, outputs in zip(self.seeds, self.outputs, strict=True):
            losses = metrics.losses(outputs, self.labels)
            accuracy = (metrics.predicted_labels(outputs) == self.labels).mean()
            if accuracy > chance or losses.mean() + 2 * losses.std() / len(losses) ** 0.5 < entropy - RESOLUTION:
                learned.append(seed)
        return tuple(learned)

    @property
    def epoch_seconds(self) -> list[float]:
        """Mean wall time of a training epoch in seconds, one value per seed."""
        rows = [row for row in self.history if row.split == "train"]
        by_seed = [[row.seconds or 0 for row in rows if row.seed == seed] for seed in self.seeds]
        return [float(np.mean(seconds)) for seconds in by_seed]


def from_results(framework: str, results: Path) -> Arm:
    """Read an arm from the folder of `framework` below `results`, where `train@...` and `evaluate@...` wrote it.

    Raises `UserError` naming a file that is missing or cannot be read.
    """
    folder = results / framework
    predictions = _predictions(folder / "predictions.npz")
    references = RunReferences.read(folder / "runs.json", _ADVICE)
    return Arm(
        style=find(framework).style,
        seeds=tuple(predictions["seeds"].tolist()),
        outputs=predictions["logits"],
        labels=predictions["labels"],
        history=history_of(folder / "history.csv"),
        manifest=Manifest.read(folder / "manifest.json"),
        runs={seed: reference.run for seed, reference in references.seeds.items()},
    )


def _layer_types(layers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the types of all layers, those inside of residual blocks included."""
    for layer in layers:
        yield layer["type"]
        for branch in ("layers", "shortcut"):
            yield from _layer_types(layer.get(branch) or ())


def history_of(path: Path) -> list[HistoryRow]:
    """Read `history.csv`. Raises `UserError` naming the file if it is missing or cannot be read."""
    try:
        return read_history(read_text(path, _ADVICE))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {_ADVICE}") from error


def _predictions(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("logits", "labels", "seeds")}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {_ADVICE}") from error
