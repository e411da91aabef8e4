"""Whether two sides were asked the same, on the same machine: what may differ is the framework alone."""

from collections.abc import Mapping
from typing import Any

from . import environment

_PACKAGES = {"tensorflow": ("tensorflow", "keras"), "pytorch": ("torch",)}


def sides(framework: str, execution: str, *, device: str, threads: int) -> dict[str, dict[str, Any]]:
    """What two sides must have in common beside their settings (`machine`), and what is a side's own (`framework`)."""
    machine = environment.machine()
    versions = machine["versions"]
    return {
        "framework": {
            "name": framework,
            "versions": {name: versions[name] for name in _PACKAGES[framework]},
            "execution": execution,
        },
        "machine": {
            "cpu": machine["cpu"],
            "cores": machine["cores_logical"],
            "memory_bytes": machine["memory_bytes"],
            "device": device,
            "threads": threads,
            "python": machine["python"],
            "numpy": versions["numpy"],
        },
    }


def told(found: Mapping[str, tuple[Any, Any]]) -> str:
    """`train.batch_size: 64 and 32; ...`"""
    return "; ".join(f"{key}: {_short(a)} and {_short(b)}" for key, (a, b) in found.items())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Every dotted key whose values differ, with both; None stands for a key that is not there."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**one, **other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = (a, b)
    return found
