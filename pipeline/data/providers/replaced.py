"""What a library looks up in its own modules, exchanged for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(new: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Module, name, value: set these, and at the end what was there before."""
    new = list(new)
    before = [(module, name, getattr(module, name)) for module, name, _ in new]
    for module, name, value in new:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
