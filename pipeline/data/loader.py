"""Hand the training split to a classifier: all at once, or chunk by chunk from the disk if it is too large."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from .array_file import ArrayFile
from .dataset import Split
from .plan import EpochPlan

_CHUNK_BYTES: Final = 1 << 26
PIECE_BYTES: Final = 1 << 24
_MOST_IMAGES: Final = 8192  # in a piece


class Predictor(Protocol):
    """The part of `models.backend.Classifier` that predicts."""

    predict_batch: int
    """Images that are computed at once."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return outputs (N, classes) for images uint8 (N, height, width, channels)."""


def predict(classifier: Predictor, images: ArrayFile) -> np.ndarray:
    """Return outputs (N, classes) for all images, which are read piece by piece."""
    return np.concatenate([classifier.predict(piece) for piece in pieces_of(images, classifier.predict_batch)])


def pieces_of(images: ArrayFile, batch: int, most: int = _MOST_IMAGES) -> Iterator[np.ndarray]:
    """Yield the images in order, in pieces of at most `most` images and 16 MiB, but of at least one batch.

    A piece is uint8 (n, height, width, channels). In all but the last piece n is a multiple of `batch`, the number of
    images that the backend computes at once, so that the size of the pieces does not change the bits.
    """
    fitting = PIECE_BYTES // max(1, images.nbytes // max(1, len(images)))
    size = max(1, min(most, fitting) // batch) * batch
    for start in range(0, len(images), size):
        yield images[start : start + size]


class Trainable(Protocol):
    """The part of `models.backend.Classifier` that takes training data."""

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Move images uint8 (N, height, width, channels) and labels int64 (N,) to the device."""


class BatchLoader:
    """Loads the images of a plan onto a classifier's device.

    `limit`: bytes of images that may be on the device at once. A larger split is streamed: chunks are read from the
    disk in the plan's order, each during the training on the one before. The batches have the same bits either way.
    """

    def __init__(self, classifier: Trainable, split: Split, limit: int, batch_size: int) -> None:
        self._classifier, self.split = classifier, split
        self.streamed = split.images.nbytes > limit
        """Whether the split is larger than `limit`."""
        self.waited = 0.0
        """Seconds that streaming has taken from training so far."""
        image_bytes = max(1, split.images.nbytes // max(1, len(split.images)))
        # up to four chunks exist at once: one on the device, one on its way there, one read, one being read
        fitting = min(_CHUNK_BYTES, limit // 4) // (image_bytes * batch_size)
        self._rows = min(max(1, fitting) * batch_size, len(split.images))
        if self.streamed:
            first = np.arange(self._rows)
            classifier.load_training_data(self.split.images[first], self.split.labels[first])
        else:
            classifier.load_training_data(split.images[:], split.labels)

    def pieces(self, plan: EpochPlan) -> Iterator[EpochPlan]:
        """Yield the plan in one segment or several; train on each before asking for the next one.

        The images of a segment are on the device when it is yielded; its `order` holds their positions there.
        """
        if not self.streamed:
            yield plan
            return
        per_chunk = self._rows // plan.batch_size or 1
        cuts = list(range(0, plan.steps, per_chunk))
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
            segments = [plan.segment(start, min(start + per_chunk, plan.steps)) for start in cuts]
            upcoming: Future[tuple[np.ndarray, np.ndarray]] = reader.submit(self._read, segments[0].order)
            for number, segment in enumerate(segments):
                began = time.perf_counter()
                images, labels = upcoming.result()
                if number + 1 < len(segments):
                    upcoming = reader.submit(self._read, segments[number + 1].order)
                self._classifier.load_training_data(images, labels)
                self.waited += time.perf_counter() - began
                yield replace(segment, order=np.arange(len(segment.order)))

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read a chunk; fill it up by repetition, as a chunk of another shape would be compiled for anew."""
        padded = np.resize(rows, self._rows)
        return self.split.images[padded], self.split.labels[padded]
