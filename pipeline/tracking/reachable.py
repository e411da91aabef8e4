"""Whether a store answers, asked as MLflow's own client asks: with its credentials, certificates and proxies."""

import json
import os
from typing import Any, Final

from . import address, mlflow_compat

_ANSWER_SECONDS: Final = 5.0
_FILES: Final = "MLFLOW_TRACKING_SERVER_CERT_PATH (or MLFLOW_TRACKING_INSECURE_TLS=true) and ..._CLIENT_CERT_PATH"
_CREDENTIALS: Final = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


_NOT_LET_IN: Final = ("authentication failed", "access denied", "no password", "login failed")
"""What drivers of databases say of wrong credentials, in lower case."""


class RefusedError(ConnectionError):
    """The store answers, but not as it is asked: waiting is of no use. The message says what to set."""


def unreachable_reason(uri: str) -> str:
    """Return why the store does not answer within 5 s; empty if it does.

    Asks once: MLflow's own client would retry for minutes, and print a warning each time. From here on MLflow's client
    has the credentials of this URI. A user's `MLFLOW_HTTP_REQUEST_TIMEOUT` takes the place of the 5 s. Raises
    `RefusedError`.
    """
    address.authenticate(uri)
    if uri.startswith("sqlite:///"):
        return ""
    return _server(uri) if uri.startswith("http") else _database(uri)


def _server(uri: str) -> str:
    set_seconds = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", 0))
    seconds = _ANSWER_SECONDS if set_seconds in (0, mlflow_compat.DEFAULT_SECONDS) else set_seconds
    try:
        status, text = mlflow_compat.ask_server(address.whole(uri), "/api/2.0/mlflow/experiments/search", seconds)
    except mlflow_compat.CertificateError as error:
        raise RefusedError(f"TLS fails: {error}; set {_FILES}") from error
    except ValueError as error:
        raise RefusedError(f"cannot be asked: {error}") from error
    except OSError as error:
        return f"does not answer: {error}"
    said = f"HTTP {status}" + (f" ({_one_line(text)})" if _one_line(text) else "")
    if status in (401, 403, 407):
        raise RefusedError(f"refuses the credentials: {said}; set {_CREDENTIALS}")
    if status == 429 or status >= 500:
        return f"does not answer: {said}"
    if status != 200 or not _is_json(text):
        raise RefusedError(f"no MLflow server at this address: {said}; allowed: a server's URL with its path, if any")
    return ""


def _database(uri: str) -> str:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    timeout = "timeout" if uri.startswith("mssql") else "connect_timeout"
    try:
        engine = create_engine(address.whole(uri), poolclass=NullPool, connect_args={timeout: int(_ANSWER_SECONDS)})
        engine.connect().close()
    except DBAPIError as error:
        said = _one_line(str(error.orig))
        if any(words in said.lower() for words in _NOT_LET_IN):
            advice = "set MLFLOW_TRACKING_URI with user and password"
            raise RefusedError(f"refuses the credentials: {said}; {advice}") from error
        return f"does not answer: {said}"
    except ImportError as error:
        advice = "install that driver, or name another, as in postgresql+psycopg2://"
        raise RefusedError(f"cannot be asked: {error}; {advice}") from error
    except SQLAlchemyError as error:
        raise RefusedError(f"cannot be asked: {_one_line(str(error))}") from error
    return ""


def _is_json(text: str) -> bool:
    try:
        answer: Any = json.loads(text or "{}")
    except ValueError:
        return False
    return isinstance(answer, dict)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
