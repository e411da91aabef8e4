"""Servers on the loopback, good and bad."""

import base64
import functools
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from project_copy import clean_environment, once

from pipeline.sweeps import workers
from pipeline.tracking.store import ensure_store


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, cut: str, stall: str, asked: list[str], **kwargs: Any) -> None:
        self.cut, self.stall, self.asked = cut, stall, asked
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        name, content = self.path.strip("/"), source.read()
        self.asked.append(name)
        outputfile.write(content[: len(content) // 2] if name in (self.cut, self.stall) else content)
        if name == self.stall:
            self.server.closing.wait(60)  # type: ignore[attr-defined]


@contextmanager
def served(folder: Path, *, cut: str = "", stall: str = "", asked: list[str] | None = None) -> Iterator[str]:
    """The URL of `folder`. Amid the file `cut` the connection is closed; amid the file `stall` nothing more comes."""
    handler = functools.partial(
        _Handler, directory=str(folder), cut=cut, stall=stall, asked=[] if asked is None else asked
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.closing = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.closing.set()  # type: ignore[attr-defined]
            server.shutdown()
            thread.join()


@contextmanager
def answering(reply: bytes | None) -> Iterator[str]:
    """The URL of one who answers everybody with these bytes, or, with None, takes the call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            try:
                while True:
                    caller, _ = server.accept()
                    with caller:
                        caller.recv(4096)
                        caller.sendall(reply or b"")
            except OSError:
                return

        if reply is not None:
            threading.Thread(target=talk, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


class Mlflow:
    """An MLflow server in a process of its own, on an empty SQLite store in `folder` or on `store`."""

    def __init__(self, folder: Path, store: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not store:
            shutil.copy(once("store", ensure_store) / "mlflow.db", folder / "server.db")
        self.store = store or f"sqlite:///{folder / 'server.db'}"
        self._folder, self.url = folder, nobody()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises where it does not answer within two minutes."""
        command = workers.command(None, "mlflow", "server", "--backend-store-uri", self.store, "--workers", "1")
        command += ["--artifacts-destination", str(self._folder / "artifacts"), "--host", "127.0.0.1"]
        command += ["--port", self.url.rpartition(":")[2]]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=clean_environment() | settings, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except OSError:
                assert self._process.poll() is None, (self._folder / "server.log").read_text()[-2000:]
                time.sleep(0.2)
        raise TimeoutError(self.url)

    def kill(self) -> None:
        """At once, with everything that it started."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


class _Gate(BaseHTTPRequestHandler):
    """What stands before a team's server: asks for a header, takes a prefix off, and passes the request on."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _pass_on(self) -> None:
        gate: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path if self.path.startswith("/") else f"/{self.path.split('/', 3)[3]}"  # asked as a proxy
        gate.seen.append((path, dict(self.headers)))
        if gate.wanted and self.headers.get("Authorization") not in gate.wanted:
            return self._reply(401, b"who are you?")
        if not path.startswith(gate.prefix + "/"):
            return self._reply(404, b"<html>no such page</html>")
        upstream = http.client.HTTPConnection(gate.upstream.hostname, gate.upstream.port, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "authorization")}
        upstream.request(self.command, path.removeprefix(gate.prefix), body, headers)
        answer = upstream.getresponse()
        return self._reply(answer.status, answer.read(), answer.getheader("Content-Type", "text/plain"))

    def _reply(self, status: int, content: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815


@contextmanager
def gate(
    upstream: str,
    *,
    user: str = "",
    token: str = "",
    prefix: str = "",
    tls: ssl.SSLContext | None = None,
    seen: list[tuple[str, dict[str, str]]] | None = None,
) -> Iterator[str]:
    """The URL of a proxy before `upstream`. `user`: "name:password" that it asks for; `token`: or this one.

    `seen`: gets (path, headers) of each request. It serves as an HTTP proxy (`HTTP_PROXY`) as well.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gate) as server:
        basic = [f"Basic {base64.b64encode(user.encode()).decode()}"] if user else []
        held: Any = server
        held.wanted, held.prefix = [*basic, *([f"Bearer {token}"] if token else [])], prefix
        held.upstream, held.seen = urlsplit(upstream), [] if seen is None else seen
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}{prefix}"
        finally:
            server.shutdown()
            thread.join()
