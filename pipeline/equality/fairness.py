"""Whether two arms were asked the same, on the same machine: what may differ is the framework alone."""

from collections.abc import Mapping
from typing import Any

from ..models.manifest import Manifest


def differing_sections(one: Manifest, other: Manifest) -> dict[str, tuple[Any, Any]]:
    """Return what two arms must have in common and have not, by key: settings, and the machine below `machine.`."""
    machines = one.machine.model_dump(), other.machine.model_dump()
    return differences(one.settings, other.settings) | differences(*machines, prefix="machine.")


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return every dotted key whose values differ, with both; None stands for a key that is not there."""
    differing: dict[str, tuple[Any, Any]] = {}
    for key in {**one, **other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            differing |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            differing[f"{prefix}{key}"] = (a, b)
    return differing


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Say `train.batch_size: 64 and 32; ...`."""
    return "; ".join(f"{key}: {_short(a)} and {_short(b)}" for key, (a, b) in differing.items())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
