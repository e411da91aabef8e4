"""A process for each provider that runs stages on request: `python tests/libraries.py torchvision|tfds`.

Each loads a framework that would crash beside the other's, and that takes seconds. Neither reaches any network but the
loopback.
"""

import atexit
import contextlib
import functools
import importlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from project_copy import ROOT, clean_environment
from servers import nobody

from pipeline.data.idx import write_idx
from pipeline.data.providers.bundled_provider import FILES

PROVIDERS = ("torchvision", "tfds")
MNIST_FILES = Path(os.environ.get("MNIST_FILES") or "nowhere")
needs_mnist_files = pytest.mark.skipif(
    not all((MNIST_FILES / name).is_file() for name in FILES),
    reason="MNIST_FILES names no folder with the four official MNIST files",
)


def made_up_mnist(folder: Path) -> None:
    """Files of the names and the form of MNIST's."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in FILES:
        shape = (2000, 28, 28) if "images" in name else (2000,)
        write_idx(folder / name, generator.integers(0, 256 if "images" in name else 10, shape, np.uint8))


ACCEPT = {
    "torchvision": """
import hashlib
from pathlib import Path
from torchvision.datasets import MNIST
def accept(folder):
    own = MNIST.resources
    MNIST.resources = [(n, hashlib.md5(Path(folder, n).read_bytes()).hexdigest()) for n, _ in own]
    return lambda: setattr(MNIST, "resources", own)
""",
    "tfds": """
import hashlib
from pathlib import Path
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
def accept(folder):
    infos = tfds.builder_cls("mnist").url_infos
    own = dict(infos)
    for url in own:
        content = Path(folder, url.rpartition("/")[2]).read_bytes()
        infos[url] = UrlInfo(len(content), hashlib.sha256(content).hexdigest(), url.rpartition("/")[2])
    return lambda: infos.update(own)
""",
}
"""Python that has a library take a folder's files for those of MNIST, until what it returns is called."""


class Done(NamedTuple):
    """How a stage ended."""

    code: int
    output: str
    errors: str
    seconds: float


def assert_refused(done: Done, *parts: str) -> None:
    """One message with all of this, and no traceback."""
    assert done.code == 2, done.errors
    assert done.errors.strip().startswith("error: ")
    assert "Traceback" not in done.errors
    for part in parts:
        assert part in done.errors


@functools.cache
def library(provider: str) -> "Library":
    """The process of this provider, for as long as the tests run."""
    return Library(provider)


class Library:
    """See the module."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        no_network = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nobody())
        self._process = subprocess.Popen(
            [sys.executable, __file__, provider],
            cwd=ROOT,
            env=clean_environment() | no_network | {"no_proxy": "127.0.0.1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        atexit.register(self._process.communicate)

    def run(self, workspace: Path, stage: str, *arguments: str) -> Done:
        """The stage `pipeline.<stage>` with `workspace` as its folder."""
        given = [*arguments, f"data.provider={self.provider}"]
        return Done(**self._ask({"workspace": str(workspace), "stage": stage, "arguments": given}))

    def do(self, source: str, **values: Any) -> None:
        """Execute Python with these values, there."""
        done = Done(**self._ask({"source": source, "values": values}))
        assert done.code == 0, done.errors

    @contextlib.contextmanager
    def accepting(self, folder: Path) -> Iterator[None]:
        """Where its library takes the files in `folder` for those of MNIST."""
        source = ACCEPT[self.provider] + "import builtins\nbuiltins.undo = accept(folder)"
        self.do(source, folder=str(folder))
        try:
            yield
        finally:
            self.do("import builtins\nbuiltins.undo()")

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        overdue = threading.Timer(300, self._process.kill)
        overdue.start()
        answer = self._process.stdout.readline()
        overdue.cancel()
        assert answer, f"{self.provider}: the process is gone"
        return json.loads(answer)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What became of one request; nothing of the process is changed after it."""
    output, errors, code, began = io.StringIO(), io.StringIO(), 0, time.monotonic()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            if "source" in request:
                exec(request["source"], request["values"])
            else:
                os.chdir(request["workspace"])
                importlib.import_module(f"pipeline.{request['stage']}").main(request["arguments"])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        except BaseException:
            code = 1
            traceback.print_exc()
    ended = time.monotonic() - began
    return {"code": code, "output": output.getvalue(), "errors": errors.getvalue(), "seconds": ended}


def main(provider: str) -> None:
    """Answer one request a line."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for module in {"torchvision": ["torchvision.datasets"], "tfds": ["tensorflow", "tensorflow_datasets"]}[provider]:
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
