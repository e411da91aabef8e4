"""Two sides as they come: seeds that differ, one seed, other examples; what is said of them."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.comparison.arm import Side
from pipeline.comparison.result import compare_sides
from pipeline.config.compose import compose
from pipeline.core.errors import UserError
from pipeline.reports.publish import rows

LABELS = np.arange(400) % 4


def side(framework: str, seeds: Sequence[int], *, wrong: int = 20, labels: np.ndarray = LABELS) -> Side:
    """Under seed s the examples s, s + 1, ... are answered wrongly, `wrong` of them."""
    outputs = np.stack([np.eye(4, dtype=np.float32)[labels] * 5 for _ in seeds])
    for row, seed in enumerate(seeds):
        outputs[row, seed : seed + wrong] = np.roll(outputs[row, seed : seed + wrong], 1, axis=1)
    history = [
        {"seed": str(seed), "epoch": "1", "split": split, "loss": "1", "accuracy": "0.5", "seconds": "2"}
        for seed in seeds
        for split in ("train", "validation")
    ]
    manifest = {
        "settings": {"parameters": 7, "data": {"fingerprint": "f"}, "model": {"name": "m"}},
        "framework": {"name": framework, "versions": {}, "execution": "eager"},
        "machine": {"device": "cpu", "threads": 2},
    }
    return Side(LOOKS[framework], tuple(seeds), outputs, labels, history, manifest, {})


CONFIG = compose(["compare.resamples=500", "compare.margin.accuracy=0.02"])


def test_only_seeds_in_common_are_compared_and_the_rest_is_named() -> None:
    found = compare_sides(side("tensorflow", [2, 0, 1]), side("pytorch", [1, 2, 9]), CONFIG.compare, 15)
    assert found.a.seeds == found.b.seeds == (1, 2)
    assert found.notes == (
        "Only seeds that both have are compared: seed 0 of TensorFlow left out.",
        "Only seeds that both have are compared: seed 9 of PyTorch left out.",
    )
    assert (found.a.outputs == found.b.outputs).all()
    assert found.verdicts["accuracy"].kind == "equivalent"
    assert {row["seed"] for row in found.a.history} == {"1", "2"}


def test_no_seed_in_common_is_refused() -> None:
    with pytest.raises(UserError, match="TensorFlow has the seeds 0, 1, PyTorch 5: none in common"):
        compare_sides(side("tensorflow", [0, 1]), side("pytorch", [5]), CONFIG.compare, 15)


def test_other_examples_are_refused() -> None:
    with pytest.raises(UserError, match="not evaluated on the same examples"):
        compare_sides(side("tensorflow", [0]), side("pytorch", [0], labels=LABELS[::-1]), CONFIG.compare, 15)


def test_one_seed_is_compared_and_its_limits_are_said() -> None:
    found = compare_sides(side("tensorflow", [3]), side("pytorch", [3], wrong=60), CONFIG.compare, 15)
    assert found.verdicts["accuracy"].kind == "inconclusive"
    assert "two trained models apart" in found.notes[0]
    assert found.mcnemar[0].only_a == 40
    document = found.document()
    assert document["metrics"]["accuracy"]["a"]["std"] is None
    assert document["metrics"]["accuracy"]["difference"]["low"] > 0


def test_a_clear_difference_is_named_in_every_place() -> None:
    found = compare_sides(side("tensorflow", range(4)), side("pytorch", range(4), wrong=60), CONFIG.compare, 15)
    assert found.verdicts["accuracy"].kind == "a_better"
    assert found.sentence("accuracy").startswith("TensorFlow is better. TensorFlow minus PyTorch: +10.00 points")
    accuracy = rows(found)[0]
    assert accuracy[:3] == ("test accuracy, %", "95.00 \u00b1 0.00", "85.00 \u00b1 0.00")
    assert accuracy[3].startswith("+10.00 [")
    assert accuracy[4] == "TensorFlow better"
    assert found.numbers()["accuracy"]["difference"] == pytest.approx(0.1)
