"""A command in a warm worker is, to whoever starts it, that command in a fresh process."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from project_copy import clean_environment

from pipeline.sweeps import workers

PROBE = """
import json, os, sys
import pipeline
if "TELL" in os.environ:
    print(json.dumps([sys.argv[1:], os.getcwd(), sys.path[0], os.environ["TELL"], os.umask(0o22), sys.stdin.read()]))
    print("to stderr", file=sys.stderr)
    print(sorted({"tensorflow", "torch", "mlflow"} & sys.modules.keys()), file=sys.stderr)
if "SLEEP" in os.environ:
    import signal, subprocess, time
    if os.environ["SLEEP"] == "deaf":
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"deaf\\n"))  # `print` may be under way
    child = subprocess.Popen(["sleep", "100"])
    print(os.getpid(), child.pid, flush=True)
    time.sleep(100)
if "END" in os.environ:
    exec(os.environ["END"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a module `probe` in it."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "probe.py").write_text(PROBE)
    return folder


def both(*arguments: str) -> list[list[str]]:
    """The command in a fresh process and in a worker."""
    return [[sys.executable, "-m", "probe", *arguments], workers.command(None, "probe", *arguments)]


def test_streams_folder_environment_and_arguments_are_the_caller_s(folder: Path) -> None:
    environment = clean_environment() | {"TELL": "me, é"}
    fresh, warm = (
        subprocess.run(command, cwd=folder, env=environment, input="in", capture_output=True, text=True, umask=0o27)
        for command in both("a b", "--c", "")
    )
    assert (warm.returncode, warm.stdout) == (fresh.returncode, fresh.stdout)
    assert str(folder) in warm.stdout
    assert warm.stderr.splitlines() == ["to stderr", "['mlflow']"]  # what is warm about it
    assert fresh.stderr.splitlines() == ["to stderr", "[]"]


ENDS = {
    "returns": ("1", 0, ""),
    "exits with 3": ("sys.exit(3)", 3, ""),
    "exits with a message": ("sys.exit('no')", 1, "no\n"),
    "exits with a number that is too large": ("sys.exit(256 + 7)", 7, ""),
    "raises": ("raise ValueError('oh')", 1, "ValueError: oh\n"),
    "is interrupted": ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt\n"),
    "kills itself": ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    "aborts": ("os.abort()", -signal.SIGABRT, ""),
    "leaves work to exit": (
        "import atexit, threading, time\natexit.register(print, 'last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
        0,
        "",
    ),
}


@pytest.mark.parametrize(("code", "status", "said"), ENDS.values(), ids=ENDS)
def test_it_ends_as_the_command_ends(folder: Path, code: str, status: int, said: str) -> None:
    environment = clean_environment() | {"END": code}
    fresh, warm = (
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True) for command in both()
    )
    assert (fresh.returncode, warm.returncode) == (status, status)
    assert fresh.stdout == warm.stdout
    for done in (fresh, warm):
        assert done.stderr.endswith(said)
        assert bool(done.stderr) == bool(said)


@contextlib.contextmanager
def asleep(folder: Path, sleep: str = "deep", **options: bool) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A command that waits, with its pid and that of a process that it started."""
    process = subprocess.Popen(
        workers.command(None, "probe"),
        cwd=folder,
        env=clean_environment() | {"SLEEP": sleep},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    try:
        yield process, pids
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def gone(pid: int) -> bool:
    """Within five seconds."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_it(folder: Path, number: signal.Signals) -> None:
    with asleep(folder) as (process, pids):
        process.send_signal(number)
        assert process.wait(5) == -number
        assert gone(pids[0])


def test_a_signal_is_its_own_to_handle(folder: Path) -> None:
    with asleep(folder, "deaf") as (process, pids):
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.readline() == "deaf\n"
        assert process.poll() is None
        assert psutil.pid_exists(pids[0])


def test_killed_alone_it_takes_the_command_along_and_nothing_else(folder: Path) -> None:
    with asleep(folder) as (process, pids):
        process.kill()
        assert gone(pids[0])
        assert psutil.pid_exists(pids[1])


def test_killed_as_a_group_nothing_of_it_is_left(folder: Path) -> None:
    with asleep(folder, start_new_session=True) as (process, pids):
        os.killpg(process.pid, signal.SIGKILL)
        assert all(map(gone, pids))


def test_the_command_that_is_killed_is_seen_to_be_killed(folder: Path) -> None:
    with asleep(folder) as (process, pids):
        os.kill(pids[0], signal.SIGKILL)
        assert process.wait(5) == -signal.SIGKILL


def test_it_ends_when_the_process_that_started_it_does(folder: Path) -> None:
    starter = (
        "import subprocess, sys\nprocess = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(process.stdout.readline(), flush=True)\ninput()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter, *workers.command(None, "probe")],
        cwd=folder,
        env=clean_environment() | {"SLEEP": "deep"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid, child = map(int, process.stdout.readline().split())
    process.kill()
    process.communicate()
    assert gone(pid)
    os.kill(child, signal.SIGKILL)


def test_nothing_is_carried_from_one_command_to_the_next(folder: Path) -> None:
    environment = clean_environment()
    code = "import random, numpy, pipeline\nprint(random.random(), hasattr(pipeline, 'mark'), numpy.random.random())"
    code += "\npipeline.mark = 1"
    said = set()
    for _ in range(3):
        command = workers.command(None, "probe")
        done = subprocess.run(command, cwd=folder, env=environment | {"END": code}, capture_output=True, text=True)
        said.add(done.stdout)
    assert len({line.split()[0] for line in said}) == len({line.split()[2] for line in said}) == 3
    assert {line.split()[1] for line in said} == {"False"}


def test_the_folder_s_own_package_is_imported_anew(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "probe.py").write_text("from pipeline import WHERE\nprint(WHERE)\n")
    for where in ("here", "there"):
        (tmp_path / "pipeline/__init__.py").write_text(f"WHERE = '{where}'\n")
        done = subprocess.run(workers.command(None, "probe"), cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == f"{where}\n"


OTHERWISE = {
    "a variable that libraries read when they are imported": {"OMP_NUM_THREADS": "1"},
    "none of one that is set": {"HOME": None},
    "a language": {"LC_ALL": "C"},
}


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE)
def test_what_would_have_been_imported_otherwise_is_a_fresh_process(
    folder: Path, change: dict[str, str | None]
) -> None:
    changed = clean_environment() | {"TELL": ""} | change
    environment = {name: value for name, value in changed.items() if value is not None}
    command = workers.command(None, "probe")
    done = subprocess.run(command, cwd=folder, env=environment, input="", capture_output=True, text=True)
    assert done.stderr.splitlines() == ["to stderr", "[]"]


def test_other_limits_or_processors_are_a_fresh_process(folder: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    def pinned() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    for change in (limited, pinned):
        done = subprocess.run(
            workers.command(None, "probe"),
            cwd=folder,
            env=clean_environment() | {"TELL": ""},
            input="",
            capture_output=True,
            text=True,
            preexec_fn=change,
        )
        assert done.stderr.splitlines() == ["to stderr", "[]"]


def test_without_workers_it_is_a_fresh_process(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = clean_environment() | {"TELL": ""}
    monkeypatch.setenv(workers.VARIABLE, str(tmp_path))
    gone_ones = workers.command(None, "probe")
    monkeypatch.delenv(workers.VARIABLE)
    for command in (gone_ones, workers.command(None, "probe")):
        done = subprocess.run(command, cwd=folder, env=environment, input="", capture_output=True, text=True)
        assert done.stderr.splitlines() == ["to stderr", "[]"]


def test_workers_end_with_whoever_kept_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(workers.VARIABLE)
    with workers.available() as place:
        running = workers.command(None, "probe")
        process = subprocess.Popen(
            running, cwd=folder, env={**os.environ, "SLEEP": "deep"}, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        pid, child = map(int, process.stdout.readline().split())
        with workers.available() as nested:
            assert nested == place
        assert workers.VARIABLE in os.environ
    assert workers.VARIABLE not in os.environ
    assert not place.exists()
    assert gone(pid)
    assert process.wait(5) == 1  # it says that its worker was ended
    os.kill(child, signal.SIGKILL)
    process.communicate()


# Whatever befalls one command is nothing to the others


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of workers of this test's own."""
    monkeypatch.delenv(workers.VARIABLE)
    with workers.available(clean_environment(warm=False)) as place:
        yield place


def told(folder: Path, **options: Any) -> str:
    """What a command finds imported: nothing in a fresh process."""
    environment = clean_environment() | {"TELL": ""}
    command = workers.command(None, "probe")
    done = subprocess.run(command, cwd=folder, env=environment, input="", capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1]


def test_a_client_that_says_nothing_or_nonsense_ends_no_other(folder: Path) -> None:
    with asleep(folder) as (process, _):
        for said in (b"", b"\0\0\0\4[1]x", b"\0\0\0\2hm"):
            with socket.socket(socket.AF_UNIX) as client, Path(os.devnull).open(encoding="utf-8") as stream:
                client.connect(f"{os.environ[workers.VARIABLE]}/none")
                if said:
                    socket.send_fds(client, [said], [stream.fileno()] * 3)
        assert told(folder) == "['mlflow']"
        assert process.poll() is None


def test_a_command_that_is_ended_in_its_first_moment_ends_no_other(folder: Path) -> None:
    with asleep(folder) as (process, _):
        for number in range(30):
            command = workers.command(None, "probe")
            environment = clean_environment() | {"SLEEP": "deep"}
            with subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
            ) as other:
                time.sleep(0.03 + 0.002 * number)
                os.killpg(other.pid, signal.SIGTERM if number % 2 else signal.SIGKILL)
            assert other.returncode in (-signal.SIGTERM, -signal.SIGKILL)
        assert process.poll() is None
    assert told(folder) == "['mlflow']"


def test_many_at_once_all_end(folder: Path) -> None:
    environment = clean_environment() | {"END": "import time; time.sleep(1)"}
    command = workers.command(None, "probe")
    processes = [subprocess.Popen(command, cwd=folder, env=environment) for _ in range(60)]
    assert {process.wait(60) for process in processes} == {0}
    assert told(folder) == "['mlflow']"


def test_where_a_worker_was_killed_commands_run_without_it(folder: Path, apart: Path) -> None:
    assert told(folder) == "['mlflow']"
    with asleep(folder) as (process, pids):
        os.kill(psutil.Process(pids[0]).ppid(), signal.SIGKILL)
        assert process.wait(5) == 1
        assert gone(pids[0])
    assert told(folder) == "[]"
    assert "the worker none ended: -9" in (apart / "log").read_text()


def test_where_a_worker_cannot_start_commands_run_without_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.py").write_text("raise ImportError('broken')\n")
    monkeypatch.delenv(workers.VARIABLE)
    with workers.available(clean_environment() | {"PYTHONPATH": str(tmp_path)}):
        assert told(folder) == "[]"
        assert told(folder) == "[]"


def test_what_cannot_be_handed_over_is_a_fresh_process(folder: Path) -> None:
    """Signals that are ignored, as under `nohup`, and a stream that is closed."""
    assert told(folder, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) == "[]"
    assert told(folder, preexec_fn=lambda: os.close(1)) == "[]"
