"""Warm workers: processes that import a framework, MLflow and DVC once, and are forked for each command.

The imports of `python -m pipeline.sweeps.job` take seconds; a fork of a process that has done them takes milliseconds.
A worker only imports and computes nothing: each fork sets threads, devices and determinism as a fresh process does, so
the bits are the same. A fork ends with its command, so no state passes from one command to the next.

`available()` runs workers during its body and names the folder of their sockets in the environment.
`command(framework, module)` is the command line that runs `python -m module` in a worker, or, if no workers run, in a
fresh process. Imports only the standard library.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VARIABLE: Final = "PIPELINE_WORKERS"
"""The environment variable that names the folder of the workers' sockets, for this process and its children."""
_CLIENT: Final = Path(__file__).with_name("client.py")


@contextmanager
def available(environment: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Run workers during the body, each started by its first command; yield the folder of their sockets.

    `environment`: the environment variables of the workers (default: those of this process). A command whose variables
    differ in a way that libraries read during import runs in a fresh process. If an outer call or an ancestor process
    already runs workers, yield their folder.
    """
    if running := os.environ.get(VARIABLE):
        yield Path(running)
        return
    folder = Path(
        tempfile.mkdtemp(prefix="workers-")
    )  # readable by this user only, and short enough for a socket's path
    os.environ[VARIABLE] = str(folder)
    try:
        with (folder / "log").open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sweeps.workers.keeper", str(folder)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach the commands only
            )
        with keeper:  # closing its standard input ends it
            assert keeper.stdout is not None
            keeper.stdout.readline()  # returns when the sockets exist
            yield folder
    finally:
        os.environ.pop(VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)


def command(framework: str | None, module: str, *arguments: str) -> list[str]:
    """Return a command line that runs `python -m MODULE ARGUMENTS`, in a worker if there are any.

    `framework`: the framework that the worker has imported; None: the worker without a framework. Streams, folder,
    environment, signals and exit code are those of `python -m MODULE ARGUMENTS`, with and without workers.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return [sys.executable, "-m", module, *arguments]
    return [sys.executable, "-I", "-S", str(_CLIENT), f"{folder}/{framework or 'none'}", module, *arguments]
