"""What every provider offers: named parts of labelled images, one after another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..images import Raw


class Example(NamedTuple):
    """One image with its label."""

    name: str
    """By which a person finds it."""
    label: int
    load: Callable[[], Raw]
    """Decodes it; may be called in a thread. Raises anything but `UserError` where it is corrupt."""


class Source(Protocol):
    """An opened data set, as it is upstream."""

    classes: Sequence[str] | None
    """Names by label; None: the library has none."""
    parts: Mapping[str, int]
    """Number of examples of `train`, and of `validation` and `test` where upstream has such parts."""
    slow: bool
    """Whether decoding is worth several threads."""

    def examples(self, part: str) -> Iterator[Example]:
        """Those of a part, in upstream's order; may be asked for again."""


@dataclass(frozen=True)
class ArraySource:
    """Images uint8 (N, height, width, channels) and labels int64 (N,) in memory, by part."""

    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
    classes: Sequence[str] | None
    slow: bool = False

    @property
    def parts(self) -> dict[str, int]:
        """See `Source`."""
        return {part: len(labels) for part, (_, labels) in self.arrays.items()}

    def examples(self, part: str) -> Iterator[Example]:
        """See `Source`."""
        for number, (image, label) in enumerate(zip(*self.arrays[part], strict=True)):
            yield Example(f"{part} {number}", int(label), lambda image=image: image)  # type: ignore[misc]
