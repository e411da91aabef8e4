"""Names of folders: how they are shown, and which of them mean a split."""

import re
from collections.abc import Sequence
from typing import Final

SPLIT_NAMES: Final = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation", "holdout", "hold-out", "hold_out"),
    "validation": ("validation", "val", "valid", "validate", "dev", "development"),
}
_ROLES: Final = {name: role for role, names in SPLIT_NAMES.items() for name in names}
_MOST_NAMES: Final = 5  # in a message


def split_of(name: str) -> str:
    """Return the split that a folder of this name is, in any case, or an empty text."""
    return _ROLES.get(name.casefold(), "")


def looks_like(name: str) -> str:
    """Return the split that a word of the name means, such as `train` for `seg_train`, or an empty text."""
    words = [word for word in re.split(r"[\W_\d]+|(?<=[a-z])(?=[A-Z])", name) if word]
    roles = {_ROLES.get(re.sub(r"(set|data|images|imgs)$", "", word.casefold()) or word) for word in words} - {None}
    return str(roles.pop()) if len(roles) == 1 else ""


def printable(name: str) -> str:
    """Escape the bytes of a name that are not valid UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def shown(name: str) -> str:
    """Escape what would not be one line, or not be seen."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in printable(name))


def some(names: Sequence[str]) -> str:
    """Return the first of these names for a message, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(map(shown, names[:_MOST_NAMES])) + (f" and {more:,} more" if more > 0 else "")
