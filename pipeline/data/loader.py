"""The training split to a classifier: all of it at once, or chunk by chunk from the disk where it is too large."""

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
_PREDICTED: Final = 8192  # images that are read at once, at most
BATCH: Final = 512  # that the backends predict at once: pieces are of whole ones, so that the bits are the same


class Predictor(Protocol):
    """What gives outputs (N, classes) for images uint8 (N, height, width, channels)."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `models.backend.Classifier`."""


def predict(classifier: Predictor, images: ArrayFile) -> np.ndarray:
    """Outputs (N, classes) for all of them, read piece by piece."""
    return np.concatenate([classifier.predict(piece) for piece in pieces_of(images)])


def pieces_of(images: ArrayFile, most: int = _PREDICTED) -> Iterator[np.ndarray]:
    """All of them in order, at most so many at once, and no more than fit into 16 MiB where 512 do."""
    fitting = PIECE_BYTES // max(1, images.nbytes // max(1, len(images)))
    size = max(1, min(most, fitting) // BATCH) * BATCH
    for start in range(0, len(images), size):
        yield images[start : start + size]


class Trainable(Protocol):
    """What takes images uint8 (N, height, width, channels) and labels int64 (N,) onto its device."""

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """See `models.backend.Classifier`."""


class BatchLoader:
    """Hands plans to a classifier, together with the images that they speak of.

    `limit`: bytes of images that may lie on the device at once. A split that is larger is read from the disk in the
    order of the plan, each chunk while the one before is trained on. The steps see the same batches either way, to the
    last bit.
    """

    def __init__(self, classifier: Trainable, split: Split, limit: int, batch_size: int) -> None:
        self._classifier, self.split = classifier, split
        self.streamed = split.images.nbytes > limit
        self.waited = 0.0
        """Seconds that streaming has cost the training so far."""
        image_bytes = max(1, split.images.nbytes // max(1, len(split.images)))
        # at most four of them at once: on the device, on its way there, read, being read
        fitting = min(_CHUNK_BYTES, limit // 4) // (image_bytes * batch_size)
        self._rows = min(max(1, fitting) * batch_size, len(split.images))
        if self.streamed:
            first = np.arange(self._rows)
            classifier.load_training_data(self.split.images[first], self.split.labels[first])
        else:
            classifier.load_training_data(split.images[:], split.labels)

    def pieces(self, plan: EpochPlan) -> Iterator[EpochPlan]:
        """The plan in one piece or several, each to be trained on before the next is asked for."""
        if not self.streamed:
            yield plan
            return
        per_chunk = self._rows // plan.batch_size or 1
        cuts = list(range(0, plan.steps, per_chunk))
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
            segments = [plan.segment(start, min(start + per_chunk, plan.steps)) for start in cuts]
            coming: Future[tuple[np.ndarray, np.ndarray]] = reader.submit(self._read, segments[0].order)
            for number, segment in enumerate(segments):
                began = time.perf_counter()
                images, labels = coming.result()
                if number + 1 < len(segments):
                    coming = reader.submit(self._read, segments[number + 1].order)
                self._classifier.load_training_data(images, labels)
                self.waited += time.perf_counter() - began
                yield replace(segment, order=np.arange(len(segment.order)))

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Always as many, so that nothing is compiled for another shape: the last chunk ends with repetitions."""
        filled = np.resize(rows, self._rows)
        return self.split.images[filled], self.split.labels[filled]
