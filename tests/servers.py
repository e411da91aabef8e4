"""Servers on the loopback, good and bad."""

import functools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


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
