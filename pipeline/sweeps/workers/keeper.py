"""Run the workers of `pipeline.sweeps.workers.available`: `python -m pipeline.sweeps.workers.keeper FOLDER`.

The keeper listens on the socket of each worker and starts the worker on its first connection, as inetd does. If a
worker ends, later commands for it run as fresh processes. All workers end when standard input closes, that is, when the
process that started the keeper ends.
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
    """Create the sockets in `folder`, print `ready`, and serve until standard input closes; then delete `folder`."""
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
                if isinstance(key.fileobj, socket.socket):  # the first connection
                    command = [sys.executable, "-m", "pipeline.sweeps.workers.worker", key.data, str(key.fd)]
                    worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[key.fd])
                    key.fileobj.close()  # only the worker holds it, so that connections fail once it ends
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
