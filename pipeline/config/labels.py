"""Short names for settings that differ: of runs in MLflow, and of columns in tables."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .schema.whole import Config

_BRIEF: Final = {"learning_rate": "lr", "batch_size": "bs", "weight_decay": "wd"}
"""The field's abbreviations; other keys are not shortened, as nobody would know what is meant."""
_NAME: Final = re.compile(r"(?!(?:true|false|null|none|nan|inf)$)[a-z_][\w.-]*", re.IGNORECASE)
"""A value that says by itself what it is, as `adam` or `lenet5` does."""
_LONGEST: Final = 24  # characters of a value: a list of layers would hide everything else


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each override's key, or the full key if two keys share their last part."""
    plain = {key: key.lstrip("+~") for key in keys}
    last = {key: re.split(r"[./]", name)[-1] for key, name in plain.items()}
    counts = Counter(last.values())
    return {key: part if counts[part] == 1 else plain[key] for key, part in last.items()}


def short_label(varied: Mapping[str, str]) -> str:
    """Return what tells a job from the others, as `lr=0.001 bs=64 adam`; `varied`: see `SweepJob.varied`.

    MLflow's UI cuts names at about 18 characters, so a name that stands for itself has no key.
    """
    keys = {key: _BRIEF.get(short, short) for key, short in short_keys(varied).items()}
    return " ".join(
        brief(value) if _NAME.fullmatch(value) else f"{keys[key]}={brief(value)}" for key, value in varied.items()
    )


def brief(value: str) -> str:
    """Cut a long value in its middle: paths differ at their end, lists at their start."""
    half = (_LONGEST - 1) // 2
    return value if len(value) <= _LONGEST else f"{value[:half]}…{value[-half:]}"


def parameters(keys: Iterable[str], config: Config) -> list[str]:
    """Return the names under which runs log what overrides with these keys set: `model.name` for the group `model`.

    Left out are those that no run logs, such as `experiment`, which stands for many others.
    """
    names = {key: key.lstrip("+~").replace("/", ".") for key in keys}
    found: dict[str, None] = {}
    for name in names.values():
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None and name.split(".")[0] in ("data", "model", "train"):
            found[f"{name}.name" if hasattr(value, "name") else name] = None
    return list(found)
