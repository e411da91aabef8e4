"""Runs `python -m MODULE ARGUMENTS` in a fork of a worker: `python -I -S client.py SOCKET MODULE ARGUMENTS`.

To whoever started it, this process is that command: it hands over its streams, folder and environment, passes on the
signals that it gets, and ends as the command ends. Killed by SIGKILL, it takes the command along; where its own parent
ends, the command gets SIGTERM. Where there is no worker, or a fresh process would be another one than its fork, it
becomes that fresh process.

The standard library alone, and little of it: this is started for every command.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_LIMITS = tuple(sorted(number for name, number in vars(resource).items() if name.startswith("RLIMIT_")))


def situation() -> dict[str, Any]:
    """What a process inherits beside environment, folder and streams, and cannot be given later, or not by all."""
    return {
        "user": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
        "processors": sorted(os.sched_getaffinity(0)),
        "niceness": os.nice(0),
        "limits": [resource.getrlimit(number) for number in _LIMITS],
        "ignored": [number for number in _PASSED_ON if signal.getsignal(number) is signal.SIG_IGN],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }


def main(path: str, module: str, *arguments: str) -> None:
    """Be that command."""
    fresh = [sys.executable, "-m", module, *arguments]
    if not all(map(_is_open, range(3))):
        os.execv(sys.executable, fresh)
    inherited = situation()
    if signal.SIGINT not in inherited["ignored"]:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is somebody to pass it on to
    end_with_parent()
    worker = socket.socket(socket.AF_UNIX)
    request = {
        "module": module,
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109 (pathlib takes as long to import as all else)
        "environment": dict(os.environ),
        "umask": _umask(),
        "leads": os.getpgrp() == os.getpid(),
        "situation": inherited,
    }
    content = json.dumps(request).encode()
    try:
        worker.connect(path)
        socket.send_fds(worker, [len(content).to_bytes(4, "big")], [0, 1, 2])
        worker.sendall(content)
        answers = worker.makefile("r")
        begun = json.loads(answers.readline() or "{}")
    except OSError:
        begun = {}
    if "pid" not in begun:
        worker.close()
        os.execv(sys.executable, fresh)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(begun["pid"], number))
    ended = json.loads(answers.readline() or "{}")
    if "status" not in ended:
        print("error: the worker that ran this command was ended; the same command goes on", file=sys.stderr)
        os._exit(1)
    code = os.waitstatus_to_exitcode(ended["status"])
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what it left, if anything, is the command's own
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that started it ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended just before
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
