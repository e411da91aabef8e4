"""The measurement of speed: restarts and their intervals; what of the machine's time goes to other programs."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from numpy_backend import NUMPY
from scipy import stats
from tracing import noise

from pipeline.comparison.result import PairSpeed
from pipeline.config.compose import compose
from pipeline.config.schema.model import ModelConfig
from pipeline.core import frameworks
from pipeline.core.errors import UserError
from pipeline.data.dataset import Dataset
from pipeline.evaluation import speed
from pipeline.evaluation.speed import OtherPrograms
from pipeline.evaluation.speed_worker import Worker
from pipeline.evaluation.summary import Ratio, geometric_ratio
from pipeline.reports.figures.comparison import speed as draw

STYLES = [frameworks.find(name).style for name in ("tensorflow", "pytorch")]


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


NETWORK = {
    "name": "tiny",
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "layers": [{"type": "flatten"}, {"type": "dense", "units": "classes"}],
}
SETTINGS = ("train.batch_size=16", "train.threads=1", "compare.speed.rounds=3", "compare.speed.block_seconds=0.01")


@pytest.fixture
def two_frameworks(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two that start quickly: NumPy, under two names."""
    names = ("numpy_1", "numpy_2")
    for name in names:
        monkeypatch.setitem(frameworks.FRAMEWORKS, name, replace(NUMPY, name=name))
    return names


def test_every_restart_starts_all_processes_anew_and_gives_one_ratio(
    tmp_path: Path, two_frameworks: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, int]] = []
    most: list[int] = []

    class Watched(Worker):
        def __init__(self, name: str, *rest: Any) -> None:
            super().__init__(name, *rest)
            started.append((name, self._usage.pid))
            most.append(len(psutil.Process().children()))

    monkeypatch.setattr(speed, "Worker", Watched)
    before = set(psutil.Process().children())
    config = compose([*SETTINGS, "compare.speed.restarts=3"])
    dataset, network = Dataset.open(noise(tmp_path / "data", (4, 4, 1))), ModelConfig.model_validate(NETWORK)
    result = speed.measure(dataset, network, config.train, config.compare.speed, two_frameworks)
    assert [name for name, _ in started] == [*two_frameworks] * 3
    assert len({pid for _, pid in started}) == 6
    assert max(most) - len(before) <= 5  # two restarts at most, and the tracker of resources
    assert not {child for child in psutil.Process().children() if child.pid in {pid for _, pid in started}}
    assert [len(rounds) for rounds in result.restarts] == [3, 3, 3]
    for kind, ratio in result.ratios["numpy_2"].items():
        by_restart = [
            np.exp(
                np.mean([np.log(np.median(row[kind]["numpy_2"]) / np.median(row[kind]["numpy_1"])) for row in rounds])
            )
            for rounds in result.restarts
        ]
        assert result.by_restart["numpy_2"][kind] == pytest.approx(by_restart)
        interval = stats.ttest_1samp(np.log(by_restart), 0).confidence_interval(0.95)
        assert (ratio.low, ratio.high) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))
        assert ratio.n == 3


def test_a_single_restart_has_no_interval_and_is_refused() -> None:
    with pytest.raises(UserError, match=r"compare\.speed\.restarts = 1: .*2"):
        compose(["compare.speed.restarts=1"])


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.86, 1.0, ("0.86", "1.00")),
        (0.86, 0.9967, ("0.86", "0.997")),
        (1.00041, 1.2, ("1.0004", "1.20")),
        (1.000001, 12.345, ("1.00", "12.35")),
    ],
)
def test_the_end_of_an_interval_beside_1_does_not_seem_to_be_1(low: float, high: float, shown: tuple[str, str]) -> None:
    assert Ratio(0.9, low, high, 3).ends == shown


def test_an_interval_of_two_restarts_can_be_drawn_however_long_it_is() -> None:
    ratio = geometric_ratio([0.2, 9.0])
    assert ratio.high > 1e3
    arm: Any = None
    figure = draw(PairSpeed(arm, arm, {"latency": ratio}, {"latency": [0.2, 9.0]}, {"latency": [0.2, 9.0]}), *STYLES)
    low, high = figure.axes[0].get_xlim()
    assert 0.1 < low < 1 < high < 10
