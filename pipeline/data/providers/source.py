"""The interface of an opened data set: named parts, each a sequence of labelled images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..images import Raw
from ..remarks import Remark


class Example(NamedTuple):
    """One image with its label."""

    name: str
    """For messages: the file's path, or the part and the position."""
    label: int
    load: Callable[[], Raw]
    """Decode the image; may be called in any thread. Raises anything but `UserError` if the image is corrupt."""


class Source(Protocol):
    """An opened data set in upstream's form."""

    classes: Sequence[str] | None
    """Names of the classes, by label; None: upstream has no names."""
    parts: Mapping[str, int]
    """Number of examples of `train`, and of `validation` and `test` if upstream has these; 0: unknown."""
    slow: bool
    """Whether decoding is slow enough to be worth several threads."""
    remarks: Sequence[Remark]
    """What was left out of the source."""

    def examples(self, part: str) -> Iterator[Example]:
        """Yield the examples of a part in upstream's order; may be called again."""


@dataclass(frozen=True)
class ArraySource:
    """A source in memory."""

    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """By part: images uint8 (N, height, width, channels), labels int64 (N,)."""
    classes: Sequence[str] | None
    slow: bool = False
    remarks: Sequence[Remark] = ()

    @property
    def parts(self) -> dict[str, int]:
        """See `Source`."""
        return {part: len(labels) for part, (_, labels) in self.arrays.items()}

    def examples(self, part: str) -> Iterator[Example]:
        """See `Source`."""
        for number, (image, label) in enumerate(zip(*self.arrays[part], strict=True)):
            yield Example(f"{part} {number}", int(label), lambda image=image: image)  # type: ignore[misc]
