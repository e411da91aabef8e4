"""Pieces of sentences for messages."""

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first of these names, at most `most`, and how many more there are: `a, b and 3 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
