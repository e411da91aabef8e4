"""Take secrets out of text: credentials in URLs, and values of the environment's variables that hold a secret."""

import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

HIDDEN: Final = "***"
_WITHOUT_PASSWORD: Final = ("ssh", "git+ssh", "svn+ssh", "sftp", "postgresql", "mysql", "mssql")
"""Schemes whose user name alone is no secret; that of http may be a token."""
_DATABASE: Final = re.compile(
    r"\b((?:postgresql|mysql|mssql)[\w+]*://[^\s:/@\"'<>]*)"
    r":[^\s@\"'<>]*@(?:[^\s/@\"'<>]*@)*"  # SQLAlchemy takes a slash in a password, the others end it there
)
_USER: Final = re.compile(r"\b([a-zA-Z][\w+.-]*)://([^\s/?#\"<>\\]*)@")
_SECRET: Final = r"pass(?:word|wd|phrase)?|pwd|token|secret|sig(?:nature)?|credentials?|(?:api|access|secret)[_-]?key"
_QUERY: Final = re.compile(rf"([?&;](?:[\w.-]*[_.-])?(?:ssl)?(?:{_SECRET})=)[^&;\s\"'<>#]+", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\w*(?:PASSWORD|_TOKEN|_SECRET|ACCESS_KEY|SECRET_KEY)|MYSQL_PWD")
_SHORTEST: Final = 8
"""A shorter value of a variable stays: it may be any word."""


def without_credentials(text: str) -> str:
    """Return the text with the credentials in its URLs hidden: user and password, and secrets of the query."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\g<1>{HIDDEN}", _USER.sub(_hide, _DATABASE.sub(r"\1@", text)))


def redacted(text: str) -> str:
    """Return the text as it may be shown: see `without_credentials`, and no password or token of the environment."""
    for secret in _of_store(os.environ.get("MLFLOW_TRACKING_URI", "").strip()):
        text = text.replace(secret, HIDDEN)
    text = without_credentials(text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _VARIABLE.fullmatch(name):
            text = text.replace(value, HIDDEN)
    return text


def without_user(uri: str) -> str:
    """Return a malformed URI with everything hidden that may be its user and password: all up to the last `@`."""
    start, user, rest = _parts(uri)
    return without_credentials(f"{start}{HIDDEN}@{rest}" if user else uri)


def _parts(uri: str) -> tuple[str, str, str]:
    """Split a URI, which may be malformed, into scheme with `://`, what stands before the last `@`, and the rest."""
    scheme = re.match(r"[a-zA-Z][\w+.-]*://", uri)
    start = scheme.group() if scheme else ""
    user, _, rest = uri.removeprefix(start).rpartition("@")
    return start, user, rest


def _of_store(uri: str) -> list[str]:
    """Return what to hide of a store's URI as it was given, the longest first: user with password, and password."""
    start, user, _ = _parts(uri)
    _, colon, password = user.partition(":")
    if start.startswith("sqlite:") or (not colon and start.startswith(_WITHOUT_PASSWORD)):
        return []
    whole = [user] if colon and password else []
    last = user.rpartition(":")[2]  # the password, where a scheme without `//` is before the user
    return [*whole, *(part for part in (user, password, last, unquote(password)) if len(part) >= _SHORTEST)]


def without_credentials_inside(value: Any) -> Any:
    """Return a JSON value with `without_credentials` applied to every string in it, other than keys."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, Mapping):
        return {key: without_credentials_inside(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_credentials_inside(inner) for inner in value]
    return value


def _hide(match: re.Match[str]) -> str:
    scheme, user = match.groups()
    if ":" not in user and scheme.partition("+")[0] in _WITHOUT_PASSWORD:
        return match.group()
    return f"{scheme}://{HIDDEN}@"
