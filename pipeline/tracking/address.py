"""The address of a store: its URI as it may be shown and kept in files, and the credentials that open it.

Everywhere but here and in MLflow's client a store goes by its URI without credentials. Those of a server are handed to
MLflow as it documents them, in `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, and only for the server whose
URI named them; MLflow's messages name the URI, and then cannot contain them.
"""

import os
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from ..core.errors import UserError
from ..core.redaction import HIDDEN, without_credentials, without_user

_VARIABLES: Final = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_KIND: Final = re.compile(r"https?://|(?:postgresql|mysql|mssql)[\w+]*://")
_ADVICE: Final = (
    "; percent-encode user and password (`/` is %2F, `#` %23, `?` %3F, `@` %40), or, for a server, set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
)
_whole: dict[str, str] = {}
"""URIs with credentials that MLflow takes in no other way, by the URI that is shown."""
_pairs: dict[str, tuple[str, str]] = {}
"""(user, password) that the URI of a server named, by the URI that is shown."""
_before: dict[str, str | None] = {}
"""The user's own values of the two variables, while those of a URI are in place."""


def remember(uri: str) -> str:
    """Return a store's URI without credentials, and keep these, in memory, for `whole` and `authenticate`."""
    if uri.startswith("sqlite:"):
        return uri
    server = uri.startswith(("http://", "https://"))
    shown = without_credentials(uri)
    if shown != uri:
        parts = urlsplit(shown)
        query = "&".join(part for part in parts.query.split("&") if not part.endswith(f"={HIDDEN}"))
        path = f"{parts.path}?{query}" if query else parts.path
        shown = f"{parts.scheme}://{parts.netloc.removeprefix(f'{HIDDEN}@')}{path}"
    shown = shown.rstrip("/") if server else shown
    user, _, password = urlsplit(uri).netloc.rpartition("@")[0].partition(":") if server else ("", "", "")
    if user and password:
        _pairs[shown] = unquote(user), unquote(password)
    elif shown != (uri.rstrip("/") if server else uri):
        _whole[shown] = uri
    return shown


def require_kind(uri: str, named: str = "MLFLOW_TRACKING_URI") -> None:
    """Raise `UserError` if `uri` is not of a kind of store that can be written to, or MLflow would read it otherwise.

    `uri`: as it was given. `named`: the setting it is from. The message shows nothing of a password: a sign that ends
    the password, as `/`, `#` or `?`, is what makes most of these URIs malformed.
    """
    if uri.startswith("sqlite:///"):
        return
    if not _KIND.match(uri):
        allowed = "allowed: sqlite:///<absolute path>, http(s)://<server>, or a database URL"
        raise UserError(f"{named} = {without_user(uri)}: {allowed}{_ADVICE if '@' in uri else ''}")
    if not _well_formed(uri):
        raise UserError(f"{named} = {without_user(uri)}: is malformed{_ADVICE}")


def _well_formed(uri: str) -> bool:
    user = uri.rpartition("@")[0].partition("://")[2]
    if re.search(r"\s", uri) or re.search(r"[\x00-\x1f\x7f\"'<>\\]", user):
        return False
    try:
        if uri.startswith("http"):
            parts = urlsplit(uri)
            rest = f"{parts.path}{parts.query}{parts.fragment}"
            return bool(parts.hostname) and (parts.port or 1) > 0 and "@" not in rest
        return "@" not in urlsplit(without_credentials(uri)).path
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def whole(uri: str) -> str:
    """Return the URI that opens a store: with the credentials that this process was given and that belong into it."""
    return _whole.get(uri, uri)


def authenticate(uri: str) -> None:
    """Have MLflow's client use the credentials that came with the URI of this server, else those of the user."""
    for name, before in _before.items():
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
    _before.clear()
    if uri in _pairs:
        for name, value in zip(_VARIABLES, _pairs[uri], strict=True):
            _before[name] = os.environ.get(name)
            os.environ[name] = value
