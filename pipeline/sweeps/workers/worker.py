"""One warm worker: `python -m pipeline.sweeps.workers.worker NAME DESCRIPTOR`, DESCRIPTOR a socket that listens.

It imports what commands of its framework need, computes nothing, and forks for each command that is asked for. A fork
runs the command as `python` would; it imports this project's own modules anew, from the folder that it was asked in.
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
from .client import end_with_parent, situation

_EVERYWHERE: Final = (
    *("pipeline.sweeps.job", "pipeline.sweeps.app", "pipeline.parity", "pipeline.compare", "pipeline.describe"),
    *("hydra.main", *WARM_IMPORTS, "git", "opentelemetry.sdk.trace"),
    *("matplotlib.backends.backend_agg", "rich.table", "rich.progress"),
)


def imported(name: str) -> tuple[str, ...]:
    """Return the modules that a worker imports: those of a framework, or for `none` those of any command.

    Whatever else a job imports meanwhile is in `sys.modules` of a fork alone, and is imported again by the next.
    """
    if name == NO_FRAMEWORK:
        return (*_EVERYWHERE, "dvc.cli")
    framework = frameworks.find(name)
    flavour = [framework.flavour] if framework.flavour else []
    return (*_EVERYWHERE, framework.backend.partition(":")[0], *flavour, *framework.warm_imports)


NO_FRAMEWORK: Final = "none"
NAMES: Final = (NO_FRAMEWORK, *frameworks.names())
_OWN: Final = ("pipeline", "hydra_plugins")
"""Packages that each command imports anew: another folder holds another project, and files are edited."""
_READ_AT_IMPORT: Final = (
    *("HOME", "XDG_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "GOMP_", "KMP_", "MKL_", "OMP_", "OPENBLAS_"),
    *(
        "CUBLAS_",
        "CUDA_",
        "CUDNN_",
        "NCCL_",
        "NVIDIA_",
        "KERAS_",
        "TF_",
        "TFDS_",
        "XLA_",
        "PYTORCH_",
        "TORCH",
        "TRITON_",
    ),
    *("MPL", "MLFLOW_", "GIT_PYTHON_"),
)
"""Beginnings of names of variables that a library may read while it is imported."""
_PATIENCE_SECONDS: Final = 2.0
_READ_LATER: Final = ("MLFLOW_TRACKING_", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_", "MLFLOW_SERVER_", "PYTHONUNBUFFERED")


@dataclass(frozen=True)
class Command:
    """What a client asked for, in the fork that is to be it."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    umask: int
    leads: bool
    """Whether the client leads a group of processes, which is to end with it."""


@dataclass
class _Child:
    pid: int
    client: socket.socket
    leads: bool


class Worker:
    """Answers clients, see `client`; `before`: the environment that the imports were done in."""

    def __init__(self, listener: socket.socket, before: dict[str, str]) -> None:
        self._listener, self._before, self._after = listener, before, dict(os.environ)
        self._situation = json.loads(json.dumps(situation()))
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files[1], self._files[1]))  # two for each fork
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._children: dict[int, _Child] = {}
        """By the descriptor that tells of its end."""

    def serve(self) -> Command:
        """Fork for each command that comes; returns in forks alone."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    if command := self._accept():
                        return command
                elif key.data is None:
                    self._reap(key.fd)
                else:
                    self._lost(key.data)

    def end(self) -> None:
        """Ask all forks to end."""
        for child in self._children.values():
            os.kill(child.pid, signal.SIGTERM)

    def _accept(self) -> Command | None:
        """None in the worker itself."""
        streams: list[int] = []
        try:
            client, _ = self._listener.accept()
        except OSError:  # it is gone
            return None
        try:
            client.settimeout(_PATIENCE_SECONDS)
            head, streams, *_ = socket.recv_fds(client, 4, 3)
            content = bytearray()
            while len(content) < int.from_bytes(head, "big"):
                if not (part := client.recv(1 << 20)):
                    raise ConnectionError("it is gone")
                content += part
            asked = json.loads(content)
        except (OSError, ValueError):  # it is gone, or says nothing
            client.close()
            for stream in streams:
                os.close(stream)
            return None
        client.settimeout(None)
        other = [] if asked.pop("situation") == self._situation else ["limits, user or processors"]
        command = Command(**asked)
        if other := other + self._otherwise(command.environment):
            print(f"{command.module}: as a fresh process, for another {', '.join(other)}", file=sys.stderr, flush=True)
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
        """With the handlers of a fresh process, from its first moment on: that of this one would end every fork."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if not pid:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _otherwise(self, asked: dict[str, str]) -> list[str]:
        """The variables under which the libraries might not be the same, had this command imported them."""
        before, after = self._before, self._after
        names = {name for name in {*asked, *before} if name.startswith(_READ_AT_IMPORT)}
        return [
            name
            for name in sorted(names)
            if not name.startswith(_READ_LATER)
            and asked.get(name) != before.get(name)
            and (name in before or asked[name] != after.get(name))
        ]

    def _watch(self, child: _Child) -> None:
        descriptor = os.pidfd_open(child.pid)
        self._children[descriptor] = child
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._selector.register(child.client, selectors.EVENT_READ, child)
        _tell(child.client, {"pid": child.pid})

    def _reap(self, descriptor: int) -> None:
        child = self._children.pop(descriptor)
        _, status = os.waitpid(child.pid, 0)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        if child.client.fileno() != -1:
            self._selector.unregister(child.client)
            _tell(child.client, {"status": status})
            child.client.close()

    def _lost(self, child: _Child) -> None:
        """Its client was killed: so is the fork, and the group of processes that the client led."""
        if child.client.fileno() == -1:  # both have just ended
            return
        self._selector.unregister(child.client)
        child.client.close()
        os.kill(child.pid, signal.SIGKILL)
        if child.leads:
            with suppress(ProcessLookupError):  # it had not begun to lead a group
                os.killpg(child.pid, signal.SIGKILL)

    def _become_fork(self, client: socket.socket, streams: list[int], command: Command) -> None:
        end_with_parent()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
        self._selector.close()
        for open_one in (self._listener, client, *(child.client for child in self._children.values())):
            open_one.close()
        for descriptor in self._children:
            os.close(descriptor)
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # which colorama, imported by DVC, has wrapped
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        assert isinstance(sys.__stdout__, io.TextIOWrapper)
        sys.__stdout__.reconfigure(line_buffering=os.isatty(1), write_through="PYTHONUNBUFFERED" in command.environment)
        os.environ.clear()
        os.environ.update(command.environment)
        os.umask(command.umask)
        os.chdir(command.folder)
        sys.path[0] = command.folder
        time.tzset()
        tempfile.tempdir = None
        for name in [name for name in sys.modules if name.split(".")[0] in _OWN]:
            del sys.modules[name]
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # else every fork draws the same
        importlib.invalidate_caches()


def _tell(client: socket.socket, answer: dict[str, Any]) -> None:
    with suppress(OSError):  # it was killed: the end of its stream says so
        client.sendall(json.dumps(answer).encode() + b"\n")


class _Exit:
    """Ends a fork when all else that is to be done at its exit is done; its memory is the system's to take back.

    The interpreter would first take apart every module, which takes up to half a second for those of a framework.
    """

    code: int | None = None
    """None: leave it to the interpreter."""

    def __call__(self) -> None:
        if self.code is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # nobody reads it any more
                    stream.flush()
            os._exit(self.code)


def main(name: str, descriptor: int) -> None:
    """Until SIGTERM, or its parent's end."""
    atexit.register(ending := _Exit())  # before any library does: the last to be called
    before = dict(os.environ)
    end_with_parent()
    for module in imported(name):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # pages that are shared stay so
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
