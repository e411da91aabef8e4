"""Of several that are asked for the same work one does it; the others wait for it, and for nothing else."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.core.errors import BusyError
from pipeline.core.turns import is_waited_for, turn

HOLD = """
import sys, time
from pathlib import Path
from pipeline.core.turns import turn
with turn(Path(sys.argv[1]), "it", Path(sys.argv[2])):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_each_has_its_turn_and_no_two_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside, most, waited = [], [], []

    def work(number: int) -> None:
        with turn(tmp_path / "key", "it", tmp_path / str(number)) as had_to_wait:
            inside.append(number)
            most.append(len(inside))
            waited.append(had_to_wait)
            time.sleep(0.3)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert sorted(waited) == [False, True, True]
    assert f"it: the same is being trained by process {os.getpid()} on " in capsys.readouterr().out
    assert not is_waited_for(tmp_path / "key")
    assert not (tmp_path / "key/holder.json").exists()


def test_who_writes_to_the_same_folder_does_not_wait(tmp_path: Path) -> None:
    def again() -> None:
        with turn(tmp_path / "key", "it", tmp_path / "other/../out"):
            pass

    with (
        turn(tmp_path / "key", "it", tmp_path / "out"),
        pytest.raises(BusyError, match=r"^it: .* into .*; wait for it"),
    ):
        again()
    again()


def test_the_turn_of_a_killed_process_ends_with_it(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "key"), str(tmp_path / "a")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        threading.Timer(0.5, process.kill).start()
        began = time.monotonic()
        with turn(tmp_path / "key", "it", tmp_path / "b") as waited:
            assert waited
            assert 0.3 < time.monotonic() - began < 5
            assert json.loads((tmp_path / "key/holder.json").read_text())["pid"] == os.getpid()


def test_the_lock_of_a_deleted_file_keeps_nobody_out(tmp_path: Path) -> None:
    """Its holder deletes the folder at the end, and another makes it anew."""
    with turn(tmp_path / "key", "it", tmp_path / "a"):
        (tmp_path / "key/lock").unlink()
        with turn(tmp_path / "key", "it", tmp_path / "b") as waited:
            assert not waited


def test_a_process_that_waited_and_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "key/waiting").mkdir(parents=True)
    (tmp_path / "key/waiting/0123").write_bytes(b"")
    assert not is_waited_for(tmp_path / "key")
    assert not list((tmp_path / "key/waiting").iterdir())
    with FileLock(tmp_path / "key/waiting/4567"):
        assert is_waited_for(tmp_path / "key")
