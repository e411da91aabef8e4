"""The process of a job. Each job needs its own: a framework keeps threads, memory and GPU until its process ends."""

import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ..config.compose import write
from ..config.schema.whole import Config
from ..core.exits import FAILED, INTERRUPTED, TERMINATED
from ..core.files import write_json
from . import workers

_MODULE = "pipeline.sweeps.job"


@dataclass(frozen=True)
class Failure:
    """The failure of a job: `failure.json`."""

    reason: str
    """The last line that it wrote to stderr, without `error: `."""
    code: int
    """Its exit code."""
    command: str
    """The command line that runs it again."""


def run_job(config: Config, output: Path) -> int:
    """Train and evaluate one job in its own process, and return the exit code (1 if a signal ended it).

    Writes `params.yaml` and, if the job fails, `failure.json`; a finished job has written `summary.json`. Raises
    `KeyboardInterrupt` if the job was interrupted.
    """
    write(config, output / "params.yaml")
    for name in ("summary.json", "failure.json", "done.json"):
        (output / name).unlink(missing_ok=True)
    arguments = ["--params", str(output / "params.yaml"), "--output", str(output)]
    code, last = _run(workers.command(config.framework, _MODULE, *arguments))
    if code < 0:  # a signal killed it before it could print a message
        last = f"error: its process was ended by {signal.Signals(-code).name}; run the same command to continue"
        print(last, file=sys.stderr, flush=True)
        code = FAILED
    if code:
        (output / "summary.json").unlink(missing_ok=True)
        reason = last.removeprefix("error: ") or f"ended with code {code}"
        command = " ".join([sys.executable, "-m", _MODULE, *arguments])
        write_json(output / "failure.json", asdict(Failure(reason, code, command)))
    if code in (INTERRUPTED, TERMINATED):
        raise KeyboardInterrupt
    return code


def _run(command: list[str]) -> tuple[int, str]:
    """Run a command, forward its stderr, and return its exit code and the last line of its stderr."""
    last = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
        except (SystemExit, KeyboardInterrupt):  # the signal may have reached this process only
            process.terminate()
            process.wait()
            raise
    return process.returncode, last
