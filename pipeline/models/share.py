"""The share of one rank: which examples of every batch it computes, where several processes train one network.

All ranks hold all weights, and take the same steps. A rank computes its rows of a batch; the loss is the sum over the
whole batch divided by its size, so that the sum of all ranks' gradients is the gradient of one process. Statistics of
batch norm are those of the whole batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import UserError


@dataclass(frozen=True)
class Share:
    """The place of this process among those that train one network."""

    rank: int
    """0 to `world` - 1."""
    world: int
    """Number of ranks."""
    addresses: tuple[str, ...]
    """`host:port` of every rank, free for the collectives of the framework."""

    def rows(self, size: int) -> slice:
        """Return the rows of a batch of `size` examples that this rank computes; sizes of ranks differ by one at most.

        Raises ValueError if there are fewer examples than ranks.
        """
        if size < self.world:
            raise ValueError(f"a batch of {size} examples for {self.world} ranks")
        return slice(size * self.rank // self.world, size * (self.rank + 1) // self.world)


@dataclass(frozen=True)
class Part:
    """The part of one batch that is computed here."""

    first: int
    """Position of its first example in the batch."""
    total: int
    """Number of examples in the whole batch."""


def rows_here(share: Share | None, size: int) -> tuple[slice, Part | None]:
    """Return the rows of a batch of `size` examples that are computed here, and which part of it they are.

    `share` None: all of them, which are no part.
    """
    if share is None:
        return slice(0, size), None
    rows = share.rows(size)
    return rows, Part(rows.start, size)


def require_shares(world: int, sizes: Iterable[int]) -> None:
    """Raise `UserError` if a batch of one of these sizes has fewer examples than there are ranks."""
    small = min(sizes)
    if small < world:
        raise UserError(
            f"train.world = {world}: a batch of {small} examples leaves ranks without one; allowed: 1 to {small}, or a "
            f"train.batch_size that leaves no batch of fewer than {world}"
        )
