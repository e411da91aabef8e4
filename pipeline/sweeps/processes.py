"""A job in a process of its own: a framework keeps its threads, memory and choice of GPU while its process lives."""

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
    """Why a job failed: `failure.json`."""

    reason: str
    """The last line that it said."""
    code: int
    command: str


def run_job(config: Config, output: Path) -> int:
    """Train and evaluate, and return the exit code.

    Leaves `summary.json`, or `failure.json`. Raises `KeyboardInterrupt` where the job was interrupted.
    """
    write(config, output / "params.yaml")
    for name in ("summary.json", "failure.json"):
        (output / name).unlink(missing_ok=True)
    arguments = ["--params", str(output / "params.yaml"), "--output", str(output)]
    code, last = _watch(workers.command(config.framework, _MODULE, *arguments))
    if code < 0:  # it could say nothing itself
        last = f"error: its process was ended by {signal.Signals(-code).name}; the same command goes on"
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


def _watch(command: list[str]) -> tuple[int, str]:
    """Run it, pass on what it says to stderr, and return its exit code with the last line of that."""
    last = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
        except (SystemExit, KeyboardInterrupt):  # it may have come to this process alone
            process.terminate()
            process.wait()
            raise
    return process.returncode, last
