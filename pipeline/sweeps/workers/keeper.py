"""Keeps the workers of `pipeline.sweeps.workers.available`: `python -m pipeline.sweeps.workers.keeper FOLDER`.

It listens for each, and starts it when somebody asks for it (as inetd does). Where one ends, its commands run as fresh
processes from then on. All end when standard input ends, which is when whoever started this does.
"""

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from .worker import NAMES


def main(folder: Path) -> None:
    """Until standard input ends."""
    selector, workers = selectors.DefaultSelector(), {}
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    for name in NAMES:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / name))
        listener.listen(128)
        selector.register(listener, selectors.EVENT_READ, name)
    print("ready", flush=True)
    try:
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    return
                selector.unregister(key.fileobj)
                if isinstance(key.fileobj, socket.socket):  # somebody asks for it
                    command = [sys.executable, "-m", "pipeline.sweeps.workers.worker", key.data, str(key.fd)]
                    worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[key.fd])
                    key.fileobj.close()  # it is the worker's now: whoever asks a worker that ended is told at once
                    workers[key.data] = worker
                    selector.register(os.pidfd_open(worker.pid), selectors.EVENT_READ, key.data)
                else:
                    (folder / key.data).unlink(missing_ok=True)
                    print(f"the worker {key.data} ended: {workers.pop(key.data).wait()}", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.send_signal(signal.SIGTERM)
        for worker in workers.values():
            worker.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
