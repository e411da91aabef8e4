"""Keeps the workers of `pipeline.workers.available`: `python -m pipeline.workers.keeper FOLDER`.

It listens for each, starts it when somebody asks for it (as inetd does), and ends all when its standard input ends,
which is when whoever started it does.
"""

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
    selector, workers = selectors.DefaultSelector(), []
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
                descriptor = key.fd
                command = [sys.executable, "-m", "pipeline.workers.worker", key.data, str(descriptor)]
                workers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[descriptor]))
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
