"""Whether two arms had the same settings and the same machine, so that only the framework differs."""

from collections.abc import Mapping
from typing import Any

from ..models.manifest import Manifest


def differing_sections(reference: Manifest, arm: Manifest) -> dict[str, tuple[Any, Any]]:
    """Return every setting and, below `machine.`, every fact of the machine that differs, by dotted key."""
    machines = reference.machine.model_dump(), arm.machine.model_dump()
    return differences(reference.settings, arm.settings) | differences(*machines, prefix="machine.")


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the two values of every dotted key at which nested mappings differ; None stands for a missing key."""
    differing: dict[str, tuple[Any, Any]] = {}
    for key in {**a, **b}:
        value_a, value_b = a.get(key), b.get(key)
        if isinstance(value_a, Mapping) and isinstance(value_b, Mapping):
            differing |= differences(value_a, value_b, f"{prefix}{key}.")
        elif value_a != value_b:
            differing[f"{prefix}{key}"] = (value_a, value_b)
    return differing


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Format differing keys and their values: `train.batch_size: 64 and 32; ...`."""
    return "; ".join(f"{key}: {_short(a)} and {_short(b)}" for key, (a, b) in differing.items())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
