"""Register the better side of a comparison as a version of one model, and let it take the champion's place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..comparison.from_mlflow import compare_runs
from ..config.schema.whole import Config
from ..core.errors import ResultError, UserError
from ..core.frameworks import find
from ..data.dataset import Dataset
from ..evaluation.latency import seconds
from ..models import backend
from ..tracking import lookup, registry
from ..tracking.registry import Version
from ..tracking.tracker import Tracker
from ..tracking.views import REGISTRY
from . import declared
from .candidate import Candidate
from .formats import open_onnx
from .proof import require_same

_ROUNDS: Final = 15
_CALLS: Final = 20
_FASTER: Final = 0.95
"""Ratio of the seconds of one image below which the challenger counts as faster."""


@dataclass(frozen=True)
class Promotion:
    """What came of it."""

    version: Version
    champion: bool
    """Whether the version is the champion now."""
    sentence: str


@dataclass(frozen=True)
class Promoter:
    """What a promotion needs."""

    tracker: Tracker
    config: Config
    scratch: Path

    def promote(self, candidate: Candidate, name: str, dataset: Dataset, comparison: str) -> Promotion:
        """Register the candidate, if it is not, and compare it with the champion.

        `dataset`: with the candidate's fingerprint. `comparison`: the id of its run, empty if there is none. Raises
        `ResultError` if it does not take the champion's place, `UserError` if a run or its files are missing.
        """
        client = self.tracker.client
        run = registry.trained(client, candidate.runs[candidate.seed])
        digest, content = self._onnx(run, dataset)
        champion = registry.by_alias(client, name, registry.CHAMPION)
        if champion and champion.tags.get("data.fingerprint") != candidate.fingerprint:
            raise ResultError(
                f"{name}: the champion {champion} was trained on the data {champion.tags.get('data.fingerprint')}, "
                f"this one on {candidate.fingerprint}: they cannot be compared; --name gives it a name of its own"
            )
        version = registry.with_weights(client, name, digest)
        if version is None:
            version = self._register(candidate, name, run, digest, content, comparison)
        if champion and champion.number == version.number:
            return Promotion(version, True, f"{version} is the champion already")
        registry.challenge(client, version)
        if champion is None:
            self._crown(version, None)
            return Promotion(version, True, f"{version} is the first champion: {candidate.reason}")
        return self._against(champion, version, candidate, dataset)

    def _onnx(self, run: lookup.RunRecord, dataset: Dataset) -> tuple[str, bytes]:
        """Write the ONNX file of a run's network, and prove it by the logits of the whole test split."""
        client, folder = self.tracker.client, self.scratch / run.id
        weights = lookup.model_files(client, run, "weights.safetensors", folder / "weights")
        description = lookup.model_files(client, run, "classifier.json", folder / "description")
        predictions = lookup.artifact(client, run.id, "evaluate/predictions.npz", folder)
        if not (weights and description and predictions):
            raise UserError(f"{run.name} ({run.id}): has no model, or was not evaluated; train it with log_model=true")
        saved = folder / "saved"
        saved.mkdir()
        for path in (weights, description):
            (saved / path.name).write_bytes(path.read_bytes())
        architecture, arrays, facts = backend.read_saved(saved)
        known = {"framework": facts["framework"], "weights": facts["weights"], "data": dataset.name}
        known |= {"data.fingerprint": dataset.fingerprint, "classes": ", ".join(dataset.classes), "run": run.id}
        content = declared.model_of(architecture, arrays, known).SerializeToString(deterministic=True)
        path = folder / registry.FILE
        path.write_bytes(content)
        with np.load(predictions, allow_pickle=False) as file:
            expected = file["logits"]
        found = open_onnx(path, 1)(np.ascontiguousarray(dataset.split("test").images[:]))
        title = find(facts["framework"]).style.title
        require_same(f"ONNX of {run.name}", found, expected, self.config.export.tolerance, title)
        return facts["weights"], content

    def _register(
        self, candidate: Candidate, name: str, run: lookup.RunRecord, digest: str, content: bytes, comparison: str
    ) -> Version:
        client = self.tracker.client
        summary = (
            f"{candidate.title} {candidate.network} on {candidate.data}: "
            f"{100 * candidate.accuracy:.2f} % test accuracy over {len(candidate.runs)} seeds; {candidate.reason}"
        )
        tags = {
            registry.DIGEST: digest,
            "data.fingerprint": candidate.fingerprint,
            "framework": candidate.framework,
            "seeds": " ".join(candidate.runs[seed] for seed in sorted(candidate.runs)),
            **({"comparison": comparison} if comparison else {}),
        }
        shown = {registry.DIGEST: digest, "mlflow.note.content": summary}
        metrics = {key: run.metrics[key] for key in ("test/accuracy", "test/loss") if key in run.metrics}
        model = registry.log_onnx(
            client,
            run.id,
            f"onnx-{candidate.network}-{candidate.framework}-s{candidate.seed}".replace(".", "-"),
            content,
            shown,
            metrics,
        )
        return registry.register(client, model, name, tags, summary)

    def _against(self, champion: Version, version: Version, candidate: Candidate, dataset: Dataset) -> Promotion:
        """Decide between the champion and the version by the paired test, then by speed."""
        before = champion.tags.get("seeds", "").split()
        titles = (f"champion {champion}", f"challenger {version}")
        after = [candidate.runs[seed] for seed in sorted(candidate.runs)]
        found = compare_runs(self.tracker, before, after, titles, self.config, self.scratch)
        verdict, said = found.verdicts["accuracy"], found.sentence("accuracy")
        if verdict.kind == "b_better":
            self._crown(version, champion)
            return Promotion(version, True, f"{version} takes the place of {champion}: {said}")
        if verdict.kind == "equivalent":
            ratio = self._ratio(champion, version, dataset)
            if ratio < _FASTER:
                self._crown(version, champion)
                why = f"it takes {ratio:.2f} of its time for an image. {said}"
                return Promotion(version, True, f"{version} takes the place of {champion}: {why}")
            said = f"It takes {ratio:.2f} of the champion's time for an image. {said}"
        raise ResultError(f"{version} is the challenger, and {champion} stays the champion. {said}")

    def _crown(self, version: Version, before: Version | None) -> None:
        """Make a version the champion, and say so in the runs that trained the two."""
        registry.move_aliases(self.tracker.client, version, before)
        for each, place in ((before, registry.PREVIOUS), (version, registry.CHAMPION)):
            if each:
                run = registry.trained(self.tracker.client, each.run)
                for reference in filter(None, (run.id, run.parent)):
                    self.tracker.add_tags(reference, {REGISTRY: place})
        self.tracker.drain()

    def _ratio(self, champion: Version, version: Version, dataset: Dataset) -> float:
        """Return the seconds of one image of the version over those of the champion, measured in turn."""
        image = np.ascontiguousarray(dataset.split("test").images[:1])
        both = [open_onnx(registry.onnx_of(each, self.scratch), 1) for each in (champion, version)]
        ratios = []
        for _ in range(_ROUNDS):
            before, after = (seconds(lambda p=predict: [p(image) for _ in range(_CALLS)]) for predict in both)  # type: ignore[misc]
            ratios.append(after / before)
        return float(np.median(ratios))


def read_document(client: Any, reference: str, results: Path, scratch: Path) -> tuple[Mapping[str, Any], str]:
    """Return a `comparison.json` and the id of its run; `reference`: a folder, or a run; empty: `results/comparison`.

    Raises `UserError`.
    """
    folder = Path(reference) if reference else results / "comparison"
    path = folder / "comparison.json"
    run = ""
    if not path.is_file():
        if not reference:
            raise UserError(f"{path}: no such file; run `dvc repro compare`")
        match = lookup.resolve(client, reference)
        found = lookup.artifact(client, match.runs[0].id, "comparison.json", scratch)
        if found is None:
            raise UserError(
                f"{reference}: the run {match.runs[0].name} holds no comparison.json; name one of `compare`"
            )
        path, run = found, match.runs[0].id
    document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not run and (runs := lookup.comparisons(client, document)):
        run = runs[0].id
    return document, run
