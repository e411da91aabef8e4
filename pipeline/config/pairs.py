"""What is a `key=value`, whoever reads it, and how messages show one."""

import re
from collections.abc import Sequence
from typing import Final

from ..core.errors import UserError

_KEY: Final = re.compile(r"(\+{0,2}|~)[\w$-]+([./@][\w$-]+)*")
LISTED: Final = "`python -m pipeline.train --cfg job` prints every key"


def require_pair(given: str) -> None:
    """Raise `UserError` for what is no `key=value`, whoever reads the value."""
    key, sign, _ = given.partition("=")
    if not sign:
        raise UserError(f"{given!r}: not key=value: has no '='; allowed: key=value; {LISTED}")
    if not key:
        raise UserError(f"{given}: has no key; allowed: key=value; {LISTED}")
    if not _KEY.fullmatch(key):
        form = "names joined by '.', as in train.epochs and model.layers.0.filters, or by '/', as in train/optimizer"
        raise UserError(f"{given}: {key!r} is no key; allowed: {form}; {LISTED}")


def without_hidden(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


def one_line(text: str) -> str:
    return " ".join(text.split())


def pair(given: str) -> str:
    """Return `key = value` for an override `key=value`."""
    key, _, value = given.removeprefix("++").partition("=")
    return f"{key} = {value or repr('')}"
