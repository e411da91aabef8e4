"""Run one warm worker: `python -m pipeline.sweeps.workers.worker NAME DESCRIPTOR`, DESCRIPTOR a listening socket.

The worker imports the modules that commands of its framework need, computes nothing, and forks for each command. A fork
runs the command as `python` would; it imports the modules of this project again, from the folder of the command.
"""

import atexit
import gc
import importlib
import io
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ...core import frameworks
from ...tracking.mlflow_compat import WARM_IMPORTS
from .client import end_with_parent, inheritance

_EVERYWHERE: Final = (
    *("pipeline.sweeps.job", "pipeline.sweeps.app", "pipeline.parity", "pipeline.compare", "pipeline.describe"),
    *("hydra.main", *WARM_IMPORTS, "git", "opentelemetry.sdk.trace"),
    *("matplotlib.backends.backend_agg", "rich.table", "rich.progress"),
)


def modules_of(name: str) -> tuple[str, ...]:
    """Return the modules that the worker `name` imports: a framework's, or, for `none`, those of commands without one.

    A module that is missing here is imported by each fork anew: slower, and nothing else.
    """
    if name == NO_FRAMEWORK:
        return (*_EVERYWHERE, "dvc.cli")
    framework = frameworks.find(name)
    flavour = [framework.flavour] if framework.flavour else []
    return (*_EVERYWHERE, framework.backend.partition(":")[0], *flavour, *framework.warm_imports)


NO_FRAMEWORK: Final = "none"
NAMES: Final = (NO_FRAMEWORK, *frameworks.names())
"""Names of all workers and of their sockets."""
_RELOADED: Final = ("pipeline", "hydra_plugins")
"""Packages that each fork imports again: folders hold different versions of them, and files are edited."""
_READ_AT_IMPORT: Final = (
    *("HOME", "XDG_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "GOMP_", "KMP_", "MKL_", "OMP_", "OPENBLAS_"),
    *("CUBLAS_", "CUDA_", "CUDNN_", "NCCL_", "NVIDIA_"),
    *("ATEN_", "BLIS_", "DNNL_", "GLIBC_TUNABLES", "NPY_", "ONEDNN_"),
    *("KERAS_", "TF_", "TFDS_", "XLA_", "PYTORCH_", "TORCH", "TRITON_"),
    *("MPL", "MLFLOW_", "GIT_PYTHON_"),
)
"""Prefixes of the environment variables that a library may read during import."""
_REQUEST_SECONDS: Final = 2.0
"""Longest wait for each part of a request."""
_READ_LATER: Final = (
    *("MLFLOW_TRACKING_", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_", "MLFLOW_SERVER_", "PYTHONUNBUFFERED"),
    *("CUDA_VISIBLE_DEVICES", "KMP_INIT_AT_FORK"),  # joblib sets the latter when it is imported
)
"""Prefixes of variables among them that are read only after import, and may differ."""


@dataclass(frozen=True)
class Command:
    """The command of a client, as its request describes it."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    umask: int
    leads: bool
    """Whether the client leads a process group, which then ends with it."""


@dataclass
class _Child:
    pid: int
    client: socket.socket
    leads: bool


class Worker:
    """The server of one worker, see `client`; `before`: the environment variables during the imports."""

    def __init__(self, listener: socket.socket, before: dict[str, str]) -> None:
        self._listener, self._before, self._after = listener, before, dict(os.environ)
        self._inherited = json.loads(json.dumps(inheritance()))
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files[1], self._files[1]))  # a fork takes two descriptors
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._children: dict[int, _Child] = {}
        """Running forks by pidfd, which becomes readable when the fork ends."""

    def serve(self) -> Command:
        """Fork for each command; return the command in the fork, and never in the worker."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    if command := self._accept():
                        return command
                elif key.data is None:
                    self._reap(key.fd)
                else:
                    self._kill(key.data)

    def end(self) -> None:
        """Send SIGTERM to all forks."""
        for child in self._children.values():
            os.kill(child.pid, signal.SIGTERM)

    def _accept(self) -> Command | None:
        """Read a request and fork; return the command in the fork, None in the worker."""
        streams: list[int] = []
        try:
            client, _ = self._listener.accept()
        except OSError:  # the client has ended
            return None
        try:
            client.settimeout(_REQUEST_SECONDS)
            head, streams, *_ = socket.recv_fds(client, 4, 3)
            content = bytearray()
            while len(content) < int.from_bytes(head, "big"):
                if not (part := client.recv(1 << 20)):
                    raise ConnectionError("the client has ended")
                content += part
            request = json.loads(content)
        except (OSError, ValueError):  # the client has ended, or sent no request
            client.close()
            for stream in streams:
                os.close(stream)
            return None
        client.settimeout(None)
        differing = [] if request.pop("inherited") == self._inherited else ["limits, user or processors"]
        command = Command(**request)
        if differing := differing + self._differing_variables(command.environment):
            reason = f"runs as a fresh process, because these differ: {', '.join(differing)}"
            print(f"{command.module}: {reason}", file=sys.stderr, flush=True)
            client.sendall(b"{}\n")
            client.close()
        elif pid := self._fork():
            self._watch(_Child(pid, client, command.leads))
        else:
            self._become_fork(client, streams, command)
            return command
        for stream in streams:
            os.close(stream)
        return None

    def _fork(self) -> int:
        """Fork with the signal handlers of a fresh process; the worker's would end all forks.

        Signals are blocked meanwhile, so that none reaches the fork under the worker's handlers.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if not pid:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _differing_variables(self, environment: dict[str, str]) -> list[str]:
        """Return the variables that differ from those of the worker and that a library may read during import.

        A variable that an import has set in the worker may have the value that it was set to.
        """
        before, after = self._before, self._after
        names = {name for name in {*environment, *before} if name.startswith(_READ_AT_IMPORT)}
        return [
            name
            for name in sorted(names)
            if not name.startswith(_READ_LATER)
            and environment.get(name) != before.get(name)
            and (name in before or environment[name] != after.get(name))
        ]

    def _watch(self, child: _Child) -> None:
        descriptor = os.pidfd_open(child.pid)
        self._children[descriptor] = child
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._selector.register(child.client, selectors.EVENT_READ, child)
        _answer(child.client, {"pid": child.pid})

    def _reap(self, descriptor: int) -> None:
        child = self._children.pop(descriptor)
        _, status = os.waitpid(child.pid, 0)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        if child.client.fileno() != -1:
            self._selector.unregister(child.client)
            _answer(child.client, {"status": status})
            child.client.close()

    def _kill(self, child: _Child) -> None:
        """Kill the fork of a client that was killed, and the process group that the client led."""
        if child.client.fileno() == -1:  # both have just ended
            return
        self._selector.unregister(child.client)
        child.client.close()
        os.kill(child.pid, signal.SIGKILL)
        if child.leads:
            with suppress(ProcessLookupError):  # the fork did not lead a group yet
                os.killpg(child.pid, signal.SIGKILL)

    def _become_fork(self, client: socket.socket, streams: list[int], command: Command) -> None:
        """Take over streams, environment, umask and folder of the command, and close the worker's descriptors."""
        end_with_parent()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
        self._selector.close()
        for connection in (self._listener, client, *(child.client for child in self._children.values())):
            connection.close()
        for descriptor in self._children:
            os.close(descriptor)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        unbuffered = "PYTHONUNBUFFERED" in command.environment
        sys.stdout = _writer(sys.__stdout__, 1, line_buffering=os.isatty(1), write_through=unbuffered)
        sys.stderr = _writer(sys.__stderr__, 2, line_buffering=True, write_through=unbuffered)
        os.environ.clear()
        os.environ.update(command.environment)
        os.umask(command.umask)
        os.chdir(command.folder)
        sys.path[0] = command.folder
        time.tzset()
        tempfile.tempdir = None
        for name in [name for name in sys.modules if name.split(".")[0] in _RELOADED]:
            del sys.modules[name]
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # else every fork draws the same numbers
        importlib.invalidate_caches()


def _writer(before: Any, descriptor: int, *, line_buffering: bool, write_through: bool) -> io.TextIOWrapper:
    """Return a new text stream on the descriptor, with the encoding and the error rule of the one before.

    One that is used again takes a pipe for the file that it wrote to.
    """
    binary = open(descriptor, "wb", closefd=False)  # noqa: SIM115 (for the life of the process)
    buffering = {"line_buffering": line_buffering, "write_through": write_through}
    return io.TextIOWrapper(binary, before.encoding, before.errors, None, **buffering)


def _answer(client: socket.socket, answer: dict[str, Any]) -> None:
    with suppress(OSError):  # the client was killed; `serve` sees the end of its stream
        client.sendall(json.dumps(answer).encode() + b"\n")


class _Exit:
    """The last exit handler of a fork: ends the process without the interpreter's teardown of modules.

    That teardown takes up to half a second for the modules of a framework, and the system frees the memory anyway.
    """

    code: int | None = None
    """Exit code; None: the interpreter ends the process."""

    def __call__(self) -> None:
        if self.code is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # the reader has closed the stream
                    stream.flush()
            os._exit(self.code)


def main(name: str, descriptor: int) -> None:
    """Import the modules and serve until SIGTERM or the end of the parent; in a fork, run its command."""
    atexit.register(ending := _Exit())  # registered first, so called last
    before = dict(os.environ)
    end_with_parent()
    path = sys.path[:]
    for module in modules_of(name):
        importlib.import_module(module)
    sys.path[:] = path  # what this project adds is its own folder, and a fork may be of another one
    gc.collect()
    gc.freeze()  # the collector must not write to pages that forks share
    worker = Worker(socket.socket(fileno=descriptor), before)

    def end(number: int, _: Any) -> None:
        worker.end()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    command = worker.serve()
    sys.argv = [command.module, *command.arguments]
    try:
        runpy.run_module(command.module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        ending.code = ended.code & 0xFF if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except Exception:
        ending.code = 1
        raise
    ending.code = 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
