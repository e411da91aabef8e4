"""The process of a job. Each job needs its own: a framework keeps threads, memory and GPU until its process ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

from ..config.compose import write
from ..config.schema.whole import Config
from ..core.errors import UserError
from ..core.exits import FAILED, INTERRUPTED, TERMINATED
from ..core.files import read_json, write_json
from . import workers

LOG: Final = "log.txt"
"""In the folder of a job: what it has written, unless it wrote to the terminal."""
_MODULE: Final = "pipeline.sweeps.job"
_TAIL_BYTES: Final = 1 << 16
_WAIT_SECONDS: Final = 10.0
"""With a limit, Python polls the process. Ray interrupts between instructions of Python alone, not a system call."""


@dataclass(frozen=True)
class Failure:
    """The failure of a job: `failure.json`."""

    reason: str
    """The last line that it wrote to stderr, without `error: `."""
    code: int
    """Its exit code."""
    command: str
    """The command line that runs it again."""

    @classmethod
    def read(cls, folder: Path) -> "Failure":
        """Read `failure.json` of a job that has no results; it may lack, as after a SIGKILL of all."""
        try:
            return cls(**read_json(folder / "failure.json"))
        except (UserError, TypeError):
            if (folder / LOG).exists():
                return cls(f"has no result; {folder / LOG} may say why, or it still runs", FAILED, "")
            return cls("has no result, and has written nothing: it was not begun", FAILED, "")


class InterruptedJobError(KeyboardInterrupt):
    """The job was interrupted, and perhaps not this process."""

    def __init__(self, code: int) -> None:
        """`code`: the job's exit code, 130 or 143."""
        super().__init__(code)
        self.code = code


def run_job(config: Config, output: Path) -> int:
    """Train and evaluate one job on this terminal, see `JobProcess.run`."""
    return JobProcess(config, output).run()


@dataclass(eq=False)
class JobProcess:
    """One job, trained and evaluated in a process of its own."""

    config: Config
    output: Path
    logged: bool = False
    """Whether it writes to `log.txt` in its folder; False: to the terminal."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside those of this process."""
    _process: subprocess.Popen[str] | None = None
    _ended: bool = False
    _lock: Lock = field(default_factory=Lock)

    def run(self) -> int:
        """Run the job, and return the exit code (1 if a signal ended it).

        Writes `params.yaml` and, if the job fails, `failure.json`; a finished job has written `summary.json`. Raises
        `InterruptedJobError` if the job was interrupted.
        """
        write(self.config, self.output / "params.yaml")
        for name in ("summary.json", "failure.json", "done.json"):
            (self.output / name).unlink(missing_ok=True)
        command = workers.command(self.config.framework, _MODULE, *self._arguments)
        code, last = self._run_logged(command) if self.logged else self._run(command)
        if code < 0:  # a signal killed it before it could print a message
            whose = "rank 0" if self.config.train.world > 1 else "its process"
            last = f"error: {whose} was ended by {signal.Signals(-code).name}; run the same command to continue"
            if not self.logged:
                print(last, file=sys.stderr, flush=True)
            code = FAILED
        if code:
            (self.output / "summary.json").unlink(missing_ok=True)
            reason = last.removeprefix("error: ") or f"ended with code {code}"
            self.record_failure(reason, code)
        if code in (INTERRUPTED, TERMINATED):
            raise InterruptedJobError(code)
        return code

    def record_failure(self, reason: str, code: int = FAILED) -> None:
        """Write `failure.json`."""
        again = " ".join([sys.executable, "-m", _MODULE, *self._arguments])
        write_json(self.output / "failure.json", asdict(Failure(reason, code, again)))

    @property
    def _arguments(self) -> list[str]:
        return ["--params", str(self.output / "params.yaml"), "--output", str(self.output)]

    def end(self) -> None:
        """Send SIGTERM to the job, which then saves a checkpoint; one that has not begun does not begin."""
        with self._lock:
            self._ended = True
            if self._process:
                self._process.terminate()

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Run a command, forward its stderr, and return its exit code and the last line of its stderr."""
        last = ""
        with self._started(command, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    sys.stderr.write(line)
                    last = line.strip() or last
            except BaseException:  # a signal may have reached this process only
                process.terminate()
                process.wait()
                raise
        return process.returncode, last

    def _run_logged(self, command: list[str]) -> tuple[int, str]:
        """Run a command that writes to the log; return its exit code, and its last line, or the last that is an error.

        It writes to the file itself, so that it can go on, and say why it ended, if this process is killed.
        """
        with (self.output / LOG).open("ab", buffering=0) as log:
            log.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {' '.join(command[-5:])}\n".encode())
            begin = log.tell()
            with self._started(command, stdout=log, stderr=subprocess.STDOUT) as process:
                try:
                    while process.returncode is None:
                        with suppress(subprocess.TimeoutExpired):
                            process.wait(timeout=_WAIT_SECONDS)
                except BaseException:  # a launcher's handlers of signals raise errors of their own
                    process.terminate()
                    process.wait()
                    raise
        lines = tail(self.output / LOG, begin)
        errors = [line for line in lines if line.startswith("error: ")]
        return process.returncode, (errors or lines or [""])[-1]

    def _started(self, command: list[str], **streams: object) -> subprocess.Popen[str]:
        with self._lock:
            if self._ended:
                raise KeyboardInterrupt
            self._process = subprocess.Popen(  # type: ignore[call-overload]
                command,
                env={**os.environ, **self.variables, **({"PYTHONUNBUFFERED": "1"} if self.logged else {})},
                stdin=subprocess.DEVNULL if self.logged else None,
                encoding="utf-8",
                errors="replace",
                **streams,
            )
        return self._process


def tail(path: Path, begin: int = 0) -> list[str]:
    """Return the last lines of a log from byte `begin` on, without empty ones; none if it cannot be read."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(begin, size - _TAIL_BYTES))
            return [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
