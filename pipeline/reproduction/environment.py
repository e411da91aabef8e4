"""How this machine and its packages differ from those of a run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..core.machine import cpu_features, machine, packages, steering_variables
from ..core.sentences import first_of

_MOST: Final = 5  # names in a sentence


def differences(facts: Mapping[str, Any], installed: Sequence[str]) -> list[str]:
    """Return a sentence for each thing that differs from the run's.

    `facts`: its `environment.json`. `installed`: the lines of its `packages.txt`; empty: it logged versions only.
    """
    here = machine()
    found = [
        _pair(name, facts.get(key), mine)
        for name, key, mine in (("Python", "python", here.python), ("processor", "cpu", here.cpu))
    ]
    if installed:
        then, now = dict(map(_split, installed)), dict(map(_split, packages()))
    else:
        then, now = dict(facts.get("versions", {})), {name: here.versions.get(name, "") for name in facts["versions"]}
    found += [_listed("packages", _changed(then, now))]
    features = set(facts.get("cpu_features", ()))
    if features and (lacking := sorted(features ^ set(cpu_features()))):
        found.append(f"instruction sets: {first_of(lacking, _MOST)}")
    gpus = [gpu["name"] for gpu in facts.get("gpus", ())]
    found.append(_pair("GPUs", ", ".join(gpus) or "none", ", ".join(gpu.name for gpu in here.gpus) or "none"))
    return [each for each in found if each]


def variables(facts: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the variables to set as they were, by name; None: to unset. Only those that move bits."""
    then: Mapping[str, str] = facts.get("variables", {})
    now = steering_variables()
    return {name: then.get(name) for name in {*then, *now} if then.get(name) != now.get(name)}


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            yield f"{name} {then.get(name) or 'absent'} then, {now.get(name) or 'absent'} now"


def _pair(name: str, then: Any, now: Any) -> str:
    return f"{name}: {then} then, {now} now" if then is not None and then != now else ""


def _split(line: str) -> tuple[str, str]:
    name, _, version = line.strip().partition("==")
    return name.lower().replace("_", "-"), version


def _listed(title: str, changes: Iterator[str]) -> str:
    return f"{title}: {first_of(listed, _MOST)}" if (listed := list(changes)) else ""
