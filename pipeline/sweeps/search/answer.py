"""The answer of a search: tuned with the same budget, which framework is better, and how sure is that?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...comparison.arm import from_results
from ...comparison.result import Comparison, compare_arms
from ...config.schema.whole import Config
from ...equality.fairness import differences, in_words
from ...search.record import SearchRecord
from ...search.study import Trial
from .chosen import Chosen, home


@dataclass(frozen=True)
class Judged:
    """Two frameworks at chosen points, compared on the test split under fresh seeds."""

    kind: str
    """`own`: each at its own best point; `common`: both at the point that is best for all."""
    framework: str
    """The one that is compared with the first."""
    comparison: Comparison


def judge(folder: Path, record: SearchRecord, chosen: Chosen, config: Config) -> list[Judged]:
    """Compare the first framework with every other, at their own best points, and at the common one if it differs."""
    reference, *others = record.space.frameworks
    judged = []
    for name in others:
        pairs = {
            "own": (chosen.own[reference].number, chosen.own[name].number),
            "common": (chosen.common.number, chosen.common.number),
        }
        if pairs["own"] == pairs["common"]:
            del pairs["common"]
        for kind, (of_a, of_b) in pairs.items():
            a = from_results(reference, folder / home(record, of_a))
            b = from_results(name, folder / home(record, of_b))
            differing = differences(a.manifest.settings, b.manifest.settings)
            notes = [
                "The interval covers the luck of the seeds and of the test images, not that of the search: another "
                "search may choose other points."
            ]
            if differing:
                notes.append(f"Each at its own best point, so the settings differ by intent: {in_words(differing)}.")
            comparison = compare_arms(a, b, config.compare, config.evaluate.calibration_bins, notes=notes)
            judged.append(Judged(kind, name, comparison))
    return judged


def sentence(trials: Sequence[Trial], judged: Sequence[Judged]) -> str:
    """Put the answer into words, over the comparisons of the frameworks at their own best points."""
    said = " ".join(each.comparison.sentence("accuracy") for each in judged if each.kind == "own")
    if said.startswith(("Inconclusive", "Equivalent")):  # and not the name of a framework
        said = (said[0].lower() + said[1:]).replace("inconclusive: ", "inconclusive; ", 1)
    return f"Tuned with the same budget ({len(trials)} trials): {said}" if said else ""
