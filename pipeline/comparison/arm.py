"""One arm of a comparison: what it predicted, how it was trained, on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ..core.errors import UserError
from ..core.files import read_json, read_text
from ..core.frameworks import SeriesStyle, find
from ..models.manifest import Manifest
from ..tracking.references import RunReferences
from ..training.results import HistoryRow, read_history

_ADVICE = "run `dvc repro`"


@dataclass(frozen=True)
class Arm:
    """Row s of `outputs` is of `seeds[s]`."""

    style: SeriesStyle
    seeds: tuple[int, ...]
    outputs: np.ndarray
    """float32 (S, N, K), of the test split."""
    labels: np.ndarray
    """int64 (N,)"""
    history: Sequence[HistoryRow]
    manifest: Manifest
    """As `train` wrote it."""
    runs: Mapping[int, str]
    """MLflow runs by seed; empty where they are not known."""

    def with_seeds(self, seeds: Sequence[int]) -> "Arm":
        """Return the same arm with these of its seeds, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        history = [row for row in self.history if row.seed in set(seeds)]
        runs = {seed: run for seed, run in self.runs.items() if seed in set(seeds)}
        return replace(self, seeds=tuple(seeds), outputs=self.outputs[rows], history=history, runs=runs)

    @property
    def title(self) -> str:
        """Its name in every table."""
        return self.style.title

    @property
    def epoch_seconds(self) -> list[float]:
        """Mean seconds of an epoch of training, by seed."""
        rows = [row for row in self.history if row.split == "train"]
        by_seed = [[row.seconds or 0 for row in rows if row.seed == seed] for seed in self.seeds]
        return [float(np.mean(seconds)) for seconds in by_seed]


def from_results(framework: str, results: Path) -> Arm:
    """Read what the stages `train@...` and `evaluate@...` left. Raises `UserError` naming a bad file."""
    folder = results / framework
    predictions = _predictions(folder / "predictions.npz")
    references = RunReferences.read(folder / "runs.json", _ADVICE)
    return Arm(
        style=find(framework).style,
        seeds=tuple(predictions["seeds"].tolist()),
        outputs=predictions["logits"],
        labels=predictions["labels"],
        history=history_of(folder / "history.csv"),
        manifest=manifest_of(folder / "manifest.json"),
        runs={seed: reference.run for seed, reference in references.seeds.items()},
    )


def manifest_of(path: Path) -> Manifest:
    """Read a manifest. Raises `UserError` naming the file."""
    try:
        return Manifest.model_validate(read_json(path, _ADVICE))
    except ValidationError as error:
        raise UserError(f"{path}: cannot be read ({error.errors()[0]['msg']}); {_ADVICE}") from error


def history_of(path: Path) -> list[HistoryRow]:
    """Read the scores of all epochs. Raises `UserError` naming the file."""
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
