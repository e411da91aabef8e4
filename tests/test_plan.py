"""The plan of an epoch: which examples, in which order, in which steps."""

import itertools

import numpy as np
import pytest

from pipeline.config.compose import compose
from pipeline.config.schema.model import ModelConfig
from pipeline.config.schema.train import AugmentConfig, TrainConfig
from pipeline.core.errors import UserError
from pipeline.data.plan import EpochPlan, draw_epoch, learning_rates, require_visible
from pipeline.models.architecture import Architecture

TRAIN = compose().train
CONSTANT = {"name": "constant", "warmup_steps": 0}


def settings(batch_size: int, learning_rate: float = 1e-3, epochs: int = 10, **schedule: object) -> TrainConfig:
    base = TRAIN.model_dump() | {"batch_size": batch_size, "epochs": epochs, "schedule": CONSTANT | schedule}
    return TrainConfig.model_validate(base | {"optimizer": base["optimizer"] | {"learning_rate": learning_rate}})


def plan(
    examples: int = 1000, batch_size: int = 64, learning_rate: float = 1e-3, seed: int = 0, epoch: int = 0
) -> EpochPlan:
    return draw_epoch(settings(batch_size, learning_rate), examples=examples, seed=seed, epoch=epoch)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_an_epoch_takes_every_example_once_in_another_order(seed: int) -> None:
    order = plan(seed=seed).order
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.count_nonzero(order == np.arange(1000)) < 20


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = plan(seed=3, epoch=2)
    np.random.default_rng(5).random(100)
    np.random.seed(5)
    plan(seed=4, epoch=9)
    again = plan(seed=3, epoch=2, batch_size=7, learning_rate=0.5)
    assert np.array_equal(first.order, again.order)


def test_a_plan_is_the_same_for_ever() -> None:
    """Results that are published with their seed are drawn again from these numbers."""
    train = settings(4, 0.5).model_copy(update={"augment": AugmentConfig(pad_and_crop=2, flip=True, cutout=3)})
    found = draw_epoch(train, examples=6, seed=3, epoch=2)
    assert found.order.tolist() == [3, 4, 5, 0, 2, 1]
    assert found.dropout_keys.tolist() == [3185623717, 2607378232]
    assert found.augmentation[:2].tolist() == [[-1, 2, 0, 1286579936, 2959277997], [1, 0, 0, 3565135997, 3016559768]]
    layers = [{"type": "flatten"}, {"type": "dense", "units": "classes"}]
    rules = {"kernel_initializer": "glorot_uniform", "bias_initializer": "fan_in_uniform", "normalise": False}
    model = ModelConfig.model_validate({"name": "test", "layers": layers, **rules})
    weights = Architecture(model, (1, 2, 1), 2).initial_weights(3)
    assert weights["dense1/kernel"].ravel().tolist() == pytest.approx(WEIGHTS, rel=1e-12)


WEIGHTS = [0.7070932604511846, 0.4283448260279501, -0.9973743669127079, -0.2298998604006205]


def test_a_warm_up_is_one_step_that_changes_nothing() -> None:
    train = settings(4, 0.5).model_copy(update={"augment": AugmentConfig(flip=True)})
    found = EpochPlan.warm_up(train, 3)
    assert (found.steps, found.batch_size, found.batch_sizes.tolist()) == (1, 3, [3])
    assert found.order.tolist() == [0, 0, 0]
    assert found.learning_rate.tolist() == [0.0]
    assert found.dropout_keys.tolist() == [0]
    assert found.augmentation.tolist() == np.zeros((3, 5)).tolist()


def test_a_plan_without_draws_has_none_for_each_example() -> None:
    assert EpochPlan(np.arange(10), 4, np.zeros(3), np.zeros(3, np.int64)).augmentation.shape == (10, 0)


def test_no_two_epochs_or_seeds_share_an_order() -> None:
    orders = {plan(seed=seed, epoch=epoch).order.tobytes() for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


@pytest.mark.parametrize(
    ("examples", "batch_size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (9, 4, [4, 4, 1]),
        (3, 4, [3]),
        (4, 4, [4]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_the_last_batch_is_counted_however_small(examples: int, batch_size: int, sizes: list[int]) -> None:
    drawn = plan(examples, batch_size)
    assert drawn.batch_sizes.tolist() == sizes
    assert drawn.steps == len(sizes)
    assert drawn.full_steps == sizes.count(batch_size)
    assert drawn.batch_sizes.sum() == examples


def test_every_step_has_the_learning_rate() -> None:
    rates = plan(10, 4, learning_rate=0.25).learning_rate
    assert rates.dtype == np.float64
    assert rates.tolist() == [0.25, 0.25, 0.25]


@pytest.mark.parametrize("cuts", [[0, 1, 2, 3], [0, 3], [0, 2, 3], [0, 1, 1, 3]], ids=str)
def test_segments_one_after_another_are_the_whole_plan(cuts: list[int]) -> None:
    draws = np.arange(50).reshape(10, 5)
    whole = EpochPlan(plan(10, 4).order, 4, np.array([0.1, 0.2, 0.3]), np.array([5, 6, 7]), draws)
    segments = [whole.segment(start, stop) for start, stop in itertools.pairwise(cuts)]
    for part in ("order", "learning_rate", "dropout_keys", "augmentation", "batch_sizes"):
        joined = np.concatenate([getattr(segment, part) for segment in segments])
        assert np.array_equal(joined, getattr(whole, part))
    assert [segment.steps for segment in segments] == np.diff(cuts).tolist()


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_wrong_number_of_values_by_step_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} learning rates, 10 examples in batches of 4"):
        EpochPlan(np.arange(10), 4, np.full(count, 0.1), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=f"{count} dropout keys, 10 examples in batches of 4"):
        EpochPlan(np.arange(10), 4, np.full(3, 0.1), np.zeros(count, np.int64))


def test_a_wrong_number_of_augmentations_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^9 augmentations, 10 examples$"):
        EpochPlan(np.arange(10), 4, np.zeros(3), np.zeros(3, np.int64), np.zeros((9, 5), np.int64))


def test_every_step_has_a_dropout_key_of_its_own() -> None:
    keys = np.concatenate(
        [plan(1000, 64, seed=seed, epoch=epoch).dropout_keys for seed in range(3) for epoch in (0, 1)]
    )
    assert keys.dtype == np.int64
    assert len(set(keys.tolist())) == len(keys)
    assert keys.min() >= 0
    assert 2**31 < keys.max() < 2**32


def test_a_cosine_falls_from_the_learning_rate_to_its_final_fraction() -> None:
    rates = learning_rates(settings(4, 0.5, epochs=4, name="cosine", final_fraction=0.2), 25)
    assert rates[0] == 0.5
    assert rates[50] == pytest.approx(0.3)  # half way between 0.5 and 0.1
    assert rates[-1] == pytest.approx(0.1, abs=2e-4)
    assert (np.diff(rates) < 0).all()


def test_a_cosine_after_a_warm_up_is_that_of_the_steps_that_are_left() -> None:
    train = settings(4, 0.5, epochs=2, name="cosine", final_fraction=0.2, warmup_steps=4)
    after = np.arange(16) / 16
    assert learning_rates(train, 10)[4:] == pytest.approx(0.5 * (0.2 + 0.8 * (1 + np.cos(np.pi * after)) / 2))


def test_a_step_schedule_multiplies_after_every_so_many_epochs() -> None:
    rates = learning_rates(settings(4, 0.5, epochs=5, name="step", every_epochs=2, factor=0.1), 3)
    assert rates == pytest.approx([0.5] * 6 + [0.05] * 6 + [0.005] * 3)


@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"name": "cosine", "final_fraction": 0.0},
        {"name": "step", "every_epochs": 9, "factor": 0.1},
    ],
)
def test_a_warm_up_grows_linearly_to_the_learning_rate(schedule: dict[str, object]) -> None:
    rates = learning_rates(settings(4, 0.5, epochs=3, warmup_steps=5, **schedule), 10)
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates.max() == 0.5


@pytest.mark.parametrize("warmup_steps", [30, 300])
def test_a_training_may_be_shorter_than_its_warm_up(warmup_steps: int) -> None:
    rates = learning_rates(settings(4, 0.3, epochs=3, warmup_steps=warmup_steps, name="cosine", final_fraction=0), 10)
    assert rates == pytest.approx(0.3 * np.arange(1, 31) / warmup_steps)


def test_an_epoch_has_its_own_part_of_the_schedule() -> None:
    train = settings(4, 0.5, epochs=3, name="cosine", final_fraction=0.0)
    parts = [draw_epoch(train, examples=10, seed=0, epoch=epoch).learning_rate for epoch in range(3)]
    assert np.array_equal(np.concatenate(parts), learning_rates(train, 3))


# Augmentation


def drawn(epoch: int = 0, seed: int = 0, count: int = 4000, **augment: object) -> np.ndarray:
    train = settings(4, 0.5).model_copy(update={"augment": AugmentConfig.model_validate(augment)})
    return draw_epoch(train, examples=count, seed=seed, epoch=epoch).augmentation


def test_nothing_is_drawn_where_there_is_no_augmentation() -> None:
    assert drawn().shape == (4000, 0)


def test_every_value_is_drawn_evenly_from_its_range() -> None:
    found = drawn(pad_and_crop=2, flip=True, cutout=3)
    assert found.dtype == np.int64
    for column, values in ((0, range(-2, 3)), (1, range(-2, 3)), (2, range(2))):
        kinds, counts = np.unique(found[:, column], return_counts=True)
        assert kinds.tolist() == list(values)
        assert counts == pytest.approx(np.full(len(values), 4000 / len(values)), rel=0.15)
    for column in (3, 4):
        assert found[:, column].min() >= 0
        assert found[:, column].max() < 2**32
        assert np.bincount(found[:, column] >> 30) == pytest.approx(np.full(4, 1000), rel=0.15)
    assert np.abs(np.corrcoef(found.T) - np.eye(5)).max() < 0.06


def test_every_epoch_and_every_seed_draws_anew_and_the_same_again() -> None:
    kinds = {"pad_and_crop": 2, "flip": True, "cutout": 3}
    found = [drawn(epoch, seed, **kinds).tobytes() for epoch in range(2) for seed in range(2)]
    assert len(set(found)) == 4
    assert found == [drawn(epoch, seed, **kinds).tobytes() for epoch in range(2) for seed in range(2)]


def test_to_switch_one_kind_on_moves_neither_the_others_nor_the_order() -> None:
    crop, both = drawn(pad_and_crop=2), drawn(pad_and_crop=2, flip=True)
    assert np.array_equal(crop[:, [0, 1, 3, 4]], both[:, [0, 1, 3, 4]])
    assert not crop[:, 2].any()
    assert not drawn(flip=True)[:, :2].any()
    train = settings(4, 0.5)
    more = train.model_copy(update={"augment": AugmentConfig(flip=True)})
    plans = [draw_epoch(one, examples=50, seed=1, epoch=2) for one in (train, more)]
    assert np.array_equal(plans[0].order, plans[1].order)
    assert np.array_equal(plans[0].dropout_keys, plans[1].dropout_keys)


@pytest.mark.parametrize("kind", ["pad_and_crop", "cutout"])
def test_what_leaves_nothing_of_an_image_is_refused(kind: str) -> None:
    require_visible(AugmentConfig.model_validate({kind: 27}), (28, 40, 1))
    told = rf"^train\.augment\.{kind} = 28: leaves nothing of images of 28x40 pixels; allowed: 0 to 27$"
    with pytest.raises(UserError, match=told):
        require_visible(AugmentConfig.model_validate({kind: 28}), (28, 40, 1))
