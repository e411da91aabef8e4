"""Two sides as they come: seeds that differ, one seed, other examples; what is said of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.comparison import from_mlflow
from pipeline.comparison.arm import Arm
from pipeline.comparison.result import compare_arms
from pipeline.config.compose import compose
from pipeline.config.labels import short_label
from pipeline.core.errors import UserError
from pipeline.core.frameworks import FRAMEWORKS
from pipeline.models.manifest import FrameworkFacts, MachineFacts, Manifest
from pipeline.reports import table
from pipeline.reports.table import rows
from pipeline.training.results import HistoryRow

LABELS = np.arange(400) % 4


def arm(
    framework: str,
    seeds: Sequence[int],
    *,
    wrong: int = 20,
    labels: np.ndarray = LABELS,
    execution: str = "eager",
    optimizer: str = "adam",
    layers: Sequence[dict[str, Any]] = (),
) -> Arm:
    """Under seed s the examples s, s + 1, ... are answered wrongly, `wrong` of them."""
    outputs = np.stack([np.eye(int(labels.max()) + 1, dtype=np.float32)[labels] * 5 for _ in seeds])
    for row, seed in enumerate(seeds):
        outputs[row, seed : seed + wrong] = np.roll(outputs[row, seed : seed + wrong], 1, axis=1)
    history = [
        HistoryRow(seed, 1, split, loss=1.0, accuracy=0.5, seconds=2.0)
        for seed in seeds
        for split in ("train", "validation")
    ]
    settings = {
        "parameters": 7,
        "data": {"fingerprint": "f"},
        "model": {"name": "m", "layers": layers},
        "train": {"optimizer": {"name": optimizer}},
    }
    own = FrameworkFacts(name=framework, versions={}, execution=execution)
    machine = MachineFacts(cpu="c", cores=2, memory_bytes=1, device="cpu", threads=2, python="3.11", numpy="2")
    manifest = Manifest(settings=settings, framework=own, machine=machine)
    return Arm(FRAMEWORKS[framework].style, tuple(seeds), outputs, labels, history, manifest, {})


CONFIG = compose(["compare.resamples=500", "compare.margin.accuracy=0.02"])


def test_only_seeds_in_common_are_compared_and_the_rest_is_named() -> None:
    found = compare_arms(arm("tensorflow", [2, 0, 1]), arm("pytorch", [1, 2, 9]), CONFIG.compare, 15)
    assert found.a.seeds == found.b.seeds == (1, 2)
    assert found.notes == (
        "Only seeds that both have are compared: seed 0 of TensorFlow left out.",
        "Only seeds that both have are compared: seed 9 of PyTorch left out.",
        "Both arms give the same answer to every test image, under every seed.",
    )
    assert (found.a.outputs == found.b.outputs).all()
    assert found.verdicts["accuracy"].kind == "equivalent"
    assert {row.seed for row in found.a.history} == {1, 2}


def test_no_seed_in_common_is_refused() -> None:
    with pytest.raises(UserError, match="TensorFlow has the seeds 0, 1, PyTorch 5: none in common"):
        compare_arms(arm("tensorflow", [0, 1]), arm("pytorch", [5]), CONFIG.compare, 15)


def test_other_numbers_of_ranks_are_refused() -> None:
    other = arm("pytorch", [0])
    other.manifest.settings["train"]["world"] = 2
    with pytest.raises(
        UserError, match=r"train.world: TensorFlow was trained with 1, PyTorch with 2; allowed: the same"
    ):
        compare_arms(arm("tensorflow", [0]), other, CONFIG.compare, 15)


def test_other_examples_are_refused() -> None:
    with pytest.raises(UserError, match="not evaluated on the same examples"):
        compare_arms(arm("tensorflow", [0]), arm("pytorch", [0], labels=LABELS[::-1]), CONFIG.compare, 15)


def test_one_seed_is_compared_and_its_limits_are_said() -> None:
    found = compare_arms(arm("tensorflow", [3]), arm("pytorch", [3], wrong=60), CONFIG.compare, 15)
    assert found.verdicts["accuracy"].kind == "inconclusive"
    assert "two trained models apart" in found.notes[0]
    assert found.mcnemar[0].only_a == 40
    document = found.document()
    assert document["metrics"]["accuracy"]["a"]["std"] is None
    assert document["metrics"]["accuracy"]["difference"]["low"] > 0


def test_a_clear_difference_is_named_in_every_place() -> None:
    found = compare_arms(arm("tensorflow", range(4)), arm("pytorch", range(4), wrong=60), CONFIG.compare, 15)
    assert found.verdicts["accuracy"].kind == "a_better"
    assert found.sentence("accuracy").startswith("TensorFlow is better. TensorFlow minus PyTorch: +10.00 points")
    accuracy = rows(found)[0]
    assert accuracy[:3] == ("test accuracy, %", "95.00 \u00b1 0.00", "85.00 \u00b1 0.00")
    assert accuracy[3].startswith("+10.00 [")
    assert accuracy[4] == "TensorFlow better"
    assert found.numbers()["accuracy"]["difference"] == pytest.approx(0.1)


def test_what_is_compared_is_said_from_the_settings_of_the_arms() -> None:
    inner = {"type": "residual", "layers": [{"type": "batch_norm"}], "shortcut": [{"type": "conv"}]}
    layers = [{"type": "max_pool"}, inner, {"type": "dropout"}, {"type": "dense"}]
    common: dict[str, Any] = {"optimizer": "sgd", "layers": layers, "execution": "compiled"}
    found = compare_arms(arm("tensorflow", [0], **common), arm("pytorch", [0], **common), CONFIG.compare, 15)
    assert found.compared == (
        "Compared: TensorFlow compiled (XLA), with this project's sgd, max_pool, batch_norm, dropout; "
        "PyTorch compiled (TorchInductor), with this project's dropout."
    )
    assert found.document()["compared"] == found.compared
    pooling = {"layers": [{"type": "max_pool"}]}
    found = compare_arms(arm("tensorflow", [0], **pooling), arm("pytorch", [0], **pooling), CONFIG.compare, 15)
    assert found.compared == (
        "Compared: TensorFlow eager, with this project's adam; PyTorch eager, with all parts its own."
    )


@pytest.mark.parametrize(("wrong", "kind"), [(20, "equivalent"), (26, "inconclusive"), (120, "a_better")])
def test_two_seeds_get_any_verdict_and_one_gets_none(wrong: int, kind: str) -> None:
    """Two keep the level of 5 %, see `calibrate_verdict.py`; their intervals are wide."""
    for seeds, expected in ((range(2), kind), (range(1), "inconclusive")):
        found = compare_arms(arm("tensorflow", seeds), arm("pytorch", seeds, wrong=wrong), CONFIG.compare, 15)
        assert found.verdicts["accuracy"].kind == expected, found.sentence("accuracy")


def test_a_comparison_s_run_is_named_by_all_that_tells_it_from_the_others() -> None:
    settings = [
        {
            "model": {"name": "lenet5"},
            "train": {"batch_size": size, "optimizer": {"name": "adam", "learning_rate": rate}},
        }
        for size in (32, 64)
        for rate in (0.1, 0.2)
    ]
    names = [short_label(each) for each in from_mlflow._telling(settings)]
    assert {" ".join(sorted(name.split())) for name in names} == {
        f"bs={n} lr={r}" for n in (32, 64) for r in (0.1, 0.2)
    }
    networks = [{"model": {"name": name}} for name in ("lenet5", "resnet8")]
    assert [short_label(each) for each in from_mlflow._telling(networks)] == ["lenet5", "resnet8"]


def _collapsed(framework: str, rows: Sequence[int], *, classes: np.ndarray = LABELS) -> Arm:
    """Under the seeds 0, 1, ... of `rows`, every image gets the same outputs: those of the shares of the classes."""
    found = arm(framework, range(3), labels=classes)
    shares = np.log((np.bincount(classes) / len(classes)).astype(np.float32))
    found.outputs[list(rows)] = shares
    return found


IMBALANCED = np.repeat([0, 1], [380, 20])


def test_of_two_arms_that_have_not_learned_nothing_is_said() -> None:
    """They agree on every image, which would else be an equivalence with an interval of no width."""
    found = compare_arms(_collapsed("tensorflow", range(3)), _collapsed("pytorch", range(3)), CONFIG.compare, 15)
    assert {verdict.kind for verdict in found.verdicts.values()} == {"inconclusive"}
    assert found.sentence("accuracy").startswith("Inconclusive: neither has learned; both are no better than the ")
    assert found.label("accuracy") == "neither learned"
    assert found.notes == (
        "TensorFlow has not learned under seeds 0, 1, 2: no better than the shares of the classes.",
        "PyTorch has not learned under seeds 0, 1, 2: no better than the shares of the classes.",
        "Both arms give the same answer to every test image, under every seed.",
    )


def test_a_seed_that_has_not_learned_is_named_and_the_rest_is_compared() -> None:
    found = compare_arms(arm("tensorflow", range(3)), _collapsed("pytorch", [1]), CONFIG.compare, 15)
    assert found.verdicts["accuracy"].learned
    assert found.notes == ("PyTorch has not learned under seed 1: no better than the shares of the classes.",)


def test_a_note_of_one_configuration_is_not_told_of_all() -> None:
    single = compare_arms(arm("tensorflow", [0]), arm("pytorch", [0], wrong=21), CONFIG.compare, 15)
    alike = compare_arms(arm("tensorflow", [0]), arm("pytorch", [0]), CONFIG.compare, 15)
    common = single.notes[0]
    assert table._notes({"lr=1": single}) == [common]
    assert table._notes({"lr=1": single, "lr=2": alike}) == [common, f"lr=2: {alike.notes[1]}"]
    many = {f"lr={number}": alike for number in range(5)} | {"lr=9": single}
    assert table._notes(many)[1] == f"lr=0; lr=1; lr=2 and 2 more: {alike.notes[1]}"


def test_who_ranks_rare_classes_has_learned_though_the_frequent_one_is_always_named() -> None:
    """With 95 % of one class, accuracy alone would not show it."""
    constant = _collapsed("pytorch", range(3), classes=IMBALANCED)
    assert constant.learned == ()
    constant.outputs[:, IMBALANCED == 1, 1] += 2
    assert (constant.outputs.argmax(axis=-1) == 0).all()
    assert arm("pytorch", range(3), labels=LABELS).learned == (0, 1, 2)
    del constant.__dict__["learned"]
    assert constant.learned == (0, 1, 2)
