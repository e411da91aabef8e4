"""One of two sides that are compared: what it predicted, how it was trained, on what."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .figures.looks import LOOKS, Look


@dataclass(frozen=True)
class Side:
    """Row s of `outputs` is of `seeds[s]`."""

    look: Look
    seeds: tuple[int, ...]
    outputs: np.ndarray
    """float32 (S, N, K), of the test split."""
    labels: np.ndarray
    """int64 (N,)"""
    history: Sequence[Mapping[str, str]]
    """Rows of `history.csv`."""
    manifest: Mapping[str, Any]
    """`settings`, `machine` and `framework`, as `train` wrote them."""
    runs: Mapping[int, str]
    """MLflow runs by seed; empty where they are not known."""

    def with_seeds(self, seeds: Sequence[int]) -> "Side":
        """The same side with these of its seeds, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        kept = [row for row in self.history if int(row["seed"]) in set(seeds)]
        runs = {seed: run for seed, run in self.runs.items() if seed in set(seeds)}
        return replace(self, seeds=tuple(seeds), outputs=self.outputs[rows], history=kept, runs=runs)

    @property
    def epoch_seconds(self) -> list[float]:
        """Mean seconds of an epoch of training, by seed."""
        rows = [row for row in self.history if row["split"] == "train"]
        by_seed = [[float(row["seconds"]) for row in rows if int(row["seed"]) == seed] for seed in self.seeds]
        return [float(np.mean(seconds)) for seconds in by_seed]

    @property
    def device(self) -> str:
        """In words."""
        machine = self.manifest["machine"]
        return f"{machine['threads']} CPU threads" if machine["device"] == "cpu" else str(machine["device"])


def from_results(framework: str, results: Path) -> Side:
    """What the stages `train@…` and `evaluate@…` left. Raises `UserError` naming the file that cannot be read."""
    folder = results / framework
    predictions = _predictions(folder / "predictions.npz")
    runs = read_json(folder / "runs.json")["seeds"]
    return Side(
        look=LOOKS[framework],
        seeds=tuple(predictions["seeds"].tolist()),
        outputs=predictions["logits"],
        labels=predictions["labels"],
        history=rows_of(read_text(folder / "history.csv")),
        manifest=read_json(folder / "manifest.json"),
        runs={int(seed): known["run"] for seed, known in runs.items()},
    )


def read_json(path: Path) -> Any:
    """Raises `UserError` naming the file."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `dvc repro`") from error


def read_text(path: Path) -> str:
    """Raises `UserError` naming the file."""
    try:
        return path.read_text()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run `dvc repro`") from error


def rows_of(text: str) -> list[dict[str, str]]:
    """Of a CSV text with a header."""
    return list(csv.DictReader(io.StringIO(text)))


def _predictions(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("logits", "labels", "seeds")}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `dvc repro`") from error
