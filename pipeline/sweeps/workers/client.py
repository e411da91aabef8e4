"""Run `python -m MODULE ARGUMENTS` in a fork of a worker: `python -I -S client.py SOCKET MODULE ARGUMENTS`.

The client stands in for the command: it passes its streams, folder and environment to the fork, forwards the signals
that it gets, and ends as the command ends. If SIGKILL ends the client, the worker kills the command; if its parent
ends, the command gets SIGTERM. If there is no worker, or a fork would differ from a fresh process, the client replaces
itself by a fresh process.

Imports little, and only from the standard library, because it starts for every command.
"""

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_LIMITS = tuple(sorted(number for name, number in vars(resource).items() if name.startswith("RLIMIT_")))


def inheritance() -> dict[str, Any]:
    """Return the inherited properties that not every fork of a worker can adopt, as JSON values.

    These are user and groups, processors, niceness, limits, and ignored and blocked signals.
    """
    return {
        "user": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
        "processors": sorted(os.sched_getaffinity(0)),
        "niceness": os.nice(0),
        "limits": [resource.getrlimit(number) for number in _LIMITS],
        "ignored": [number for number in _FORWARDED if signal.getsignal(number) is signal.SIG_IGN],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }


def main(path: str, module: str, *arguments: str) -> NoReturn:
    """Run the command in the worker that listens at `path`, and end with its exit code or signal. Never returns."""
    fresh = [sys.executable, "-m", module, *arguments]
    if not all(map(_is_open, range(3))):
        os.execv(sys.executable, fresh)
    inherited = inheritance()
    if signal.SIGINT not in inherited["ignored"]:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is a process to forward it to
    end_with_parent()
    worker = socket.socket(socket.AF_UNIX)
    request = {
        "module": module,
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109 (pathlib takes as long to import as everything else)
        "environment": dict(os.environ),
        "umask": _umask(),
        "leads": os.getpgrp() == os.getpid(),
        "inherited": inherited,
    }
    content = json.dumps(request).encode()
    try:
        worker.connect(path)
        socket.send_fds(worker, [len(content).to_bytes(4, "big")], [0, 1, 2])
        worker.sendall(content)
        start = json.loads(_line(worker) or "{}")
    except OSError:
        start = {}
    if "pid" not in start:
        worker.close()
        os.execv(sys.executable, fresh)
    _stand_in(start["pid"], worker)


def _line(worker: socket.socket) -> str:
    """Return the next line, read byte by byte, so that what follows is seen to be there; empty if there is none."""
    line = b""
    while not line.endswith(b"\n") and (byte := worker.recv(1)):
        line += byte
    return line.decode()


def _stand_in(pid: int, worker: socket.socket) -> NoReturn:
    """Forward signals to the fork until the worker reports its end, and end in the same way.

    By a pipe: a handler of Python's own would wait for the end of a call that began just after the signal arrived.
    """
    arrived, arrives = os.pipe()
    os.set_blocking(arrives, False)
    signal.set_wakeup_fd(arrives, warn_on_full_buffer=False)
    for number in _FORWARDED:
        signal.signal(number, lambda *_: None)
    awaited: list[Any] = [worker, arrived]
    while worker not in (ready := select.select(awaited, [], [])[0]):
        for byte in os.read(arrived, 64) if arrived in ready else b"":
            try:
                os.kill(pid, byte)
            except ProcessLookupError:  # its end is about to be reported
                continue
    end = json.loads(_line(worker) or "{}")
    if "status" not in end:
        print("error: the worker of this command was ended; run the same command to continue", file=sys.stderr)
        os._exit(1)
    code = os.waitstatus_to_exitcode(end["status"])
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has dumped its own core, if any
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before the call
        os.kill(os.getpid(), signal.SIGTERM)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


if __name__ == "__main__":
    main(*sys.argv[1:])
