"""Warm workers: processes that have imported a framework, MLflow and DVC once, and are forked for each command.

Starting `python -m pipeline.sweeps.job` costs seconds of imports; a fork of a process that has done them costs
milliseconds. A worker imports and computes nothing: threads, devices and determinism are settled in each fork, as in a
fresh process, and the bits are the same. A fork ends with its command, so nothing is carried from one to the next.

`available(folder)` keeps workers for as long as its body runs and names `folder` in the environment;
`command(framework, module)`
is the command line that runs `python -m module` in one of them, or, where nobody keeps any, in a fresh process. Imports
nothing but the standard library and `pipeline.core.errors`.
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
"""Names the folder with the workers' sockets, for this process and those that it starts."""
_CLIENT: Final = Path(__file__).with_name("client.py")


@contextmanager
def available(environment: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Keep workers while the body runs, each started when it is first asked for; yield the folder of their sockets.

    `environment`: what the libraries are imported in, this process's by default; a command under another one, as far as
    libraries look at it, runs in a fresh process. Where this is nested, or a process that started this one keeps
    workers, those serve.
    """
    if kept := os.environ.get(VARIABLE):
        yield Path(kept)
        return
    folder = Path(tempfile.mkdtemp(prefix="workers-"))  # for this user alone; a socket's path is short
    os.environ[VARIABLE] = str(folder)
    try:
        with (folder / "log").open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sweeps.workers.keeper", str(folder)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the commands
            )
        with keeper:  # closes its standard input, which ends it
            assert keeper.stdout is not None
            keeper.stdout.readline()  # the sockets are there
            yield folder
    finally:
        os.environ.pop(VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)


def command(framework: str | None, module: str, *arguments: str) -> list[str]:
    """The command line of `python -m MODULE ARGUMENTS`: in a worker that has imported `framework`, or None, if any.

    The process that it starts has the streams, the folder, the environment, the signals and the exit code of that
    command, whether or not anybody keeps workers.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return [sys.executable, "-m", module, *arguments]
    return [sys.executable, "-I", "-S", str(_CLIENT), f"{folder}/{framework or 'none'}", module, *arguments]
