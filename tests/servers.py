"""Servers on the loopback, good and bad."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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
