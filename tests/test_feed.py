"""Augmentation on the device, and training images that come from the disk in chunks: the same bits in any way."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import reference
from reference import assert_same_bits
from tracing import noise

from pipeline.config.compose import compose
from pipeline.data.dataset import Dataset, Split
from pipeline.data.loader import BatchLoader, pieces_of, predict
from pipeline.data.plan import EpochPlan, draw_epoch
from pipeline.models import backend
from pipeline.models.architecture import Architecture
from pipeline.models.backend import Classifier, State

SHAPE = (9, 8, 3)
IMAGE_BYTES = 9 * 8 * 3
EVERYTHING = ["train.augment.pad_and_crop=2", "train.augment.flip=true", "train.augment.cutout=4"]
AUGMENTATIONS = {
    "crop": EVERYTHING[:1],
    "flip": EVERYTHING[1:2],
    "cutout": ["train.augment.cutout=3"],
    "all": EVERYTHING,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(noise(tmp_path_factory.mktemp("feed") / "data", SHAPE, count=600))


def create(framework: str, data: Dataset, *overrides: str) -> Classifier:
    common = ["model=lenet5", "model.normalise=true", "train.batch_size=16", "train.epochs=2", "train.threads=1"]
    network = {"layers": [{"type": "conv", "filters": 2, "kernel_size": 3}, {"type": "flatten"}]}
    config = compose([*common, *overrides])
    logits = {"type": "dense", "units": "classes"}
    model = config.model.model_validate(config.model.model_dump() | {"layers": [*network["layers"], logits]})
    return backend.create(framework, Architecture.of(model, data), config.train)


def plans(classifier: Classifier, split: Split) -> Iterator[EpochPlan]:
    for epoch in range(2):
        yield draw_epoch(classifier.train, examples=len(split.labels), seed=0, epoch=epoch)


# Augmentation


@pytest.mark.parametrize("kinds", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_batches_are_augmented_as_by_hand(framework: str, data: Dataset, kinds: Sequence[str]) -> None:
    split, scale = data.split("train"), np.float32(1) / np.float32(255)
    images = split.images[:]
    executions = {"tensorflow": ("eager", "graph", "compiled"), "pytorch": ("eager",)}  # torch compiles the rest
    for execution in executions[framework]:
        classifier = create(framework, data, *kinds, f"train.execution={execution}")
        classifier.load_training_data(images, split.labels)
        for plan in plans(classifier, split):
            expected = reference.augmented(images[plan.order], classifier.train.augment, plan.augmentation)
            assert not np.array_equal(expected, images[plan.order])
            found = np.concatenate([batch for batch, _ in classifier.iter_batches(plan)])
            assert np.array_equal(found, expected.astype(np.float32) * scale)


def test_training_and_probe_take_the_augmented_images(framework: str, data: Dataset) -> None:
    augmented, plain = create(framework, data, *EVERYTHING), create(framework, data)
    split = data.split("train")
    images = split.images[:]
    plan = next(plans(augmented, split)).segment(0, 3)
    augmented.load_training_data(images, split.labels)
    by_hand = reference.augmented(images[plan.order], augmented.train.augment, plan.augmentation)
    plain.load_training_data(by_hand, split.labels[plan.order])
    same = EpochPlan(np.arange(len(plan.order)), plan.batch_size, plan.learning_rate, plan.dropout_keys)
    for classifier in (augmented, plain):
        backend.initialise(classifier, 0)
    assert augmented.probe(plan).loss == plain.probe(same).loss
    assert np.array_equal(augmented.train_epoch(plan).loss, plain.train_epoch(same).loss)
    assert_same_bits(augmented.state(), plain.state())


# Streaming


def train_all(classifier: Classifier, feed: BatchLoader, split: Split) -> tuple[np.ndarray, State]:
    backend.initialise(classifier, 0)
    losses = [classifier.train_epoch(piece).loss for plan in plans(classifier, split) for piece in feed.pieces(plan)]
    return np.concatenate(losses), classifier.state()


@pytest.mark.parametrize("augmentation", [(), EVERYTHING], ids=["plain", "augmented"])
def test_streamed_images_train_to_the_bits_of_resident_ones(
    framework: str, data: Dataset, augmentation: Sequence[str]
) -> None:
    classifier, split = create(framework, data, *augmentation), data.split("train")
    resident = BatchLoader(classifier, split, split.images.nbytes, 16)
    assert not resident.streamed
    losses, expected = train_all(classifier, resident, split)
    for limit in (1, 4 * 32 * IMAGE_BYTES, split.images.nbytes - 1):  # chunks of one, two, ... batches
        feed = BatchLoader(classifier, split, limit, 16)
        assert feed.streamed
        found, state = train_all(classifier, feed, split)
        assert np.array_equal(found, losses)
        assert_same_bits(state, expected)


def test_nothing_is_compiled_again_from_chunk_to_chunk(data: Dataset) -> None:
    split, attached, trained = data.split("train"), [], []

    class Recorder:
        def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
            attached.append((images, labels))

    feed = BatchLoader(Recorder(), split, 4 * 32 * IMAGE_BYTES, 16)
    order = np.random.default_rng(0).permutation(len(split.labels))
    steps = -(-len(order) // 16)
    plan = EpochPlan(order, 16, np.zeros(steps), np.zeros(steps, np.int64))
    attached.clear()
    for piece in feed.pieces(plan):
        images, labels = attached[-1]
        trained.append((images[piece.order], labels[piece.order]))
    assert len({images.shape for images, _ in attached}) == 1
    assert len(attached) == -(-steps // 2)
    assert np.array_equal(np.concatenate([images for images, _ in trained]), split.images[order])
    assert np.array_equal(np.concatenate([labels for _, labels in trained]), split.labels[order])


def test_predictions_come_piece_by_piece(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Mean:
        predict_batch = 50

        def predict(self, images: np.ndarray) -> np.ndarray:
            asked.append(len(images))
            return images.mean((1, 2))

    images = data.split("train").images
    whole = images[:].mean((1, 2))
    assert np.array_equal(predict(Mean(), images), whole)
    assert [len(piece) for piece in pieces_of(images, 50, most=120)] == [100] * 4 + [80]
    monkeypatch.setattr("pipeline.data.loader.PIECE_BYTES", 60 * IMAGE_BYTES)
    asked.clear()
    assert np.array_equal(predict(Mean(), images), whole)
    assert asked == [50] * 9 + [30]
