"""The measurement of speed: what of the machine's time goes to programs that have no part in it."""

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipeline.evaluation.speed import OtherPrograms


def test_time_that_others_take_is_counted_and_that_of_the_workers_is_not() -> None:
    """Of the same seconds: with a busy process among the others, and among the workers."""
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=-1) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        process = psutil.Process(busy.pid)

        def seconds() -> float:
            times = process.cpu_times()
            return times.user + times.system

        worker: Any = SimpleNamespace(cpu_seconds=seconds)
        without, with_it, began, used = OtherPrograms([]), OtherPrograms([worker]), time.monotonic(), seconds()
        time.sleep(1.5)
        shares, used, lasted = (without.cpu_share(), with_it.cpu_share()), seconds() - used, time.monotonic() - began
        busy.kill()
    assert used > 0.2
    assert shares[0] - shares[1] == pytest.approx(used / lasted / (psutil.cpu_count() or 1), abs=0.06)
    assert 0 <= shares[1] < shares[0] <= 1
