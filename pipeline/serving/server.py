"""The server that an application runs in."""

import socket
from typing import Any

from ..core.errors import UserError


def require_free(host: str, port: int) -> None:
    """Raise `UserError` if nothing can listen there."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from error


def serve(app: Any, host: str, port: int, grace_seconds: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that have begun get `grace_seconds` to end."""
    import uvicorn

    config = uvicorn.Config(
        app, host, port, log_level="warning", access_log=False, timeout_graceful_shutdown=grace_seconds, ws="none"
    )
    uvicorn.Server(config).run()
