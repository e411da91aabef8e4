"""Speed: the frameworks take turns on one machine, block by block, and each block is timed.

Timing one framework after the other compares two moments of the machine as much as two frameworks. Here every framework
is loaded in a process of its own, and one computes while the others wait: A B, B A, A B, ... Each ratio is of two
blocks of one round, so that whatever slows the machine down for a while slows both. Compilation and warm-up are timed
separately.

A process keeps much of its speed from its start to its end, and the next one has another: its memory and its threads
lie elsewhere. More rounds of the same processes do not show that. So the processes are started anew several times, and
the unit of every interval is a restart: the geometric mean of its rounds' ratios is one observation, and the interval
is Student's t on the logarithms of the restarts (Georges et al. 2007; Kalibera & Jones 2013).
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psutil

from ..config.schema.compare import SpeedConfig
from ..config.schema.model import ModelConfig
from ..config.schema.train import TrainConfig
from ..core.progress import steps
from ..data.dataset import Dataset
from .speed_result import ArmSpeed, Round, SpeedResult, mean_ratio
from .speed_worker import ALONE, Worker, chunk, most_images
from .summary import Ratio, geometric_ratio

KINDS: Final = ("training", "inference", "latency")
_UNITS: Final = {"training": "images", "inference": "images", "latency": "calls"}
_SHARES: Final = {"training": 1.0, ALONE: 1.0, "inference": 0.5, "latency": 0.2}
"""Length of a block of each kind, as a share of `compare.speed.block_seconds`."""


@dataclass(frozen=True)
class _Restart:
    """What one start of all processes measured."""

    facts: Mapping[str, Mapping[str, Any]]
    """By framework, see `Ready`."""
    rounds: Sequence[Round]
    idle: Mapping[str, float]
    """CPU time that each framework used while it waited, as a share of one core."""
    others_cpu_share: float


Ready = tuple[Mapping[str, Worker], Mapping[str, dict[str, Any]]]
"""Processes by framework, compiled and warm, and what each told of itself: facts of `ArmSpeed`, and `pace`."""


def measure(
    dataset: Dataset, model: ModelConfig, train: TrainConfig, speed: SpeedConfig, names: Sequence[str]
) -> SpeedResult:
    """Measure the frameworks `names` in turn; the first of them is the reference.

    Raises `UserError` if a framework cannot do what `train` asks for.
    """

    def start() -> dict[str, Worker]:
        return {name: Worker(name, dataset, model, train) for name in names}

    restarts: list[_Restart] = []
    sizes: dict[str, int] = {}
    with steps("speed", speed.restarts * speed.rounds, "rounds") as progress, closing(_ready(start, speed)) as groups:
        for number, (workers, facts) in enumerate(groups):
            if not sizes:  # the same for all restarts
                kinds = (*KINDS, ALONE) if train.world > 1 else KINDS
                paces = {kind: [facts[name]["pace"][kind] for name in names] for kind in kinds}
                sizes = {kind: _block_size(kind, paces[kind], speed, dataset) for kind in kinds}
            restarts.append(_measure(number, workers, facts, sizes, speed.rounds, progress))
    settings = {"model": model.model_dump(), "train": train.model_dump(), "data": dict(dataset.identity)}
    return _result(settings, restarts, sizes)


def _ready(start: Callable[[], dict[str, Worker]], speed: SpeedConfig) -> Generator[Ready, None, None]:
    """Yield the processes of each restart, ready to be timed; end them afterwards.

    The next ones are imported while these compile, and rest while these are timed.
    """
    workers, upcoming = start(), dict[str, Worker]()
    try:
        for left in reversed(range(speed.restarts)):
            _wait_for_imports(workers)
            upcoming = start() if left else {}
            compiled = {name: worker.ask("compile") for name, worker in workers.items()}
            _wait_for_imports(upcoming)
            facts = {name: worker.ask("warm_up") for name, worker in workers.items()}  # in turn: sets the pace
            yield workers, {name: {**facts[name], "compile_seconds": compiled[name]} for name in workers}
            _close(workers)
            workers, upcoming = upcoming, {}
    finally:
        _close(workers)
        _close(upcoming)


def _wait_for_imports(workers: Mapping[str, Worker]) -> None:
    """Wait until all have imported, which they do at the same time."""
    for worker in workers.values():
        worker.ask("open")


def _close(workers: Mapping[str, Worker]) -> None:
    for worker in workers.values():
        worker.close()


def _measure(
    number: int,
    workers: Mapping[str, Worker],
    facts: Mapping[str, dict[str, Any]],
    sizes: Mapping[str, int],
    rounds: int,
    progress: Callable[[], None],
) -> _Restart:
    """Time the rounds of restart `number`; each framework is first in its share of all rounds."""
    names = [*workers]
    waited, idle = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    other_programs, timed = OtherPrograms([*workers.values()]), []
    for turn in range(number * rounds, (number + 1) * rounds):
        first = turn % len(names)
        order = [*names[first:], *names[:first]]
        timed.append({kind: _take_turns(kind, sizes[kind], order, workers, waited, idle) for kind in sizes})
        progress()
    share = other_programs.cpu_share()
    return _Restart(facts, timed, {name: idle[name] / waited[name] for name in names}, share)


def _take_turns(
    kind: str,
    size: int,
    order: Sequence[str],
    workers: Mapping[str, Worker],
    waited: dict[str, float],
    idle: dict[str, float],
) -> dict[str, list[float]]:
    """Time one block of each framework in `order`; return its seconds by framework.

    Adds to `waited` the seconds that each framework waited for the others, and to `idle` the CPU seconds that it used
    meanwhile.
    """
    row = {}
    for name in order:
        others = [worker for worker in workers.values() if worker.name != name]
        before, began = [other.cpu_seconds() for other in others], time.perf_counter()
        row[name] = workers[name].ask(kind, size)
        seconds = time.perf_counter() - began
        for other, used in zip(others, before, strict=True):
            waited[other.name] += seconds
            idle[other.name] += other.cpu_seconds() - used
    return row


def _result(settings: dict[str, dict[str, Any]], restarts: Sequence[_Restart], sizes: dict[str, int]) -> SpeedResult:
    reference, *others = restarts[0].facts
    by_restart = {
        arm: {kind: [mean_ratio(restart.rounds, kind, arm, reference) for restart in restarts] for kind in KINDS}
        for arm in others
    }
    return SpeedResult(
        settings=settings,
        reference=reference,
        arms={name: _arm_speed(name, restarts, sizes) for name in (reference, *others)},
        ratios={arm: {kind: geometric_ratio(ratios) for kind, ratios in of.items()} for arm, of in by_restart.items()},
        by_restart=by_restart,
        blocks=sizes,
        units=dict(_UNITS),
        restarts=[list(restart.rounds) for restart in restarts],
        others_cpu_share=float(np.mean([restart.others_cpu_share for restart in restarts])),
    )


def _arm_speed(name: str, restarts: Sequence[_Restart], sizes: Mapping[str, int]) -> ArmSpeed:
    """Return what was measured of one framework, over all restarts."""
    facts = restarts[-1].facts[name]  # the last: no other starts while it compiles
    rounds = [row for restart in restarts for row in restart.rounds]
    calls = np.array([seconds for row in rounds for seconds in row["latency"][name]]) * 1000
    p50, p95 = np.percentile(calls, (50, 95))
    steps_of = {kind: sizes[kind] for kind in ("training", ALONE) if kind in sizes}
    images = {kind: count * facts["batch_size"] for kind, count in steps_of.items()} | {"inference": sizes["inference"]}
    return ArmSpeed(
        **{
            f"{kind}_images_per_second": float(np.median([count / row[kind][name][0] for row in rounds]))
            for kind, count in images.items()
        },
        latency_p50_milliseconds=float(p50),
        latency_p95_milliseconds=float(p95),
        idle_cpu_share=float(np.mean([restart.idle[name] for restart in restarts])),
        efficiency=_efficiency(name, restarts, sizes, facts["world"]) if ALONE in sizes else None,
        **{key: value for key, value in facts.items() if key != "pace"},
    )


def _efficiency(name: str, restarts: Sequence[_Restart], sizes: Mapping[str, int], world: int) -> Ratio:
    """Return the training speed of all ranks over `world` times that of one process."""
    steps_ratio = sizes["training"] / sizes[ALONE] / world
    of_restarts = [
        [steps_ratio * row[ALONE][name][0] / row["training"][name][0] for row in restart.rounds] for restart in restarts
    ]
    return geometric_ratio([float(np.exp(np.mean(np.log(ratios)))) for ratios in of_restarts])


def _block_size(kind: str, paces: Sequence[float], speed: SpeedConfig, dataset: Dataset) -> int:
    """Return how many steps, images or calls fill a block for the slowest framework; all get the same number.

    `paces`: seconds per step, image or call of each framework.
    """
    size = max(1, int(speed.block_seconds * _SHARES[kind] / max(paces)))
    if kind == "inference":
        return min(most_images(dataset), -(-size // chunk(dataset)) * chunk(dataset))
    return max(size, 5) if kind == "latency" else size


class OtherPrograms:
    """The CPU time that other programs use from now on."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._machine_start, self._own_start = self._used()

    def _used(self) -> tuple[Any, float]:
        """Return the CPU times of the machine, and the CPU seconds of this process and its workers."""
        own = sum(worker.cpu_seconds() for worker in self._workers) + time.process_time()
        return psutil.cpu_times(), own

    def cpu_share(self) -> float:
        """Return the share of all cores' time since the start that other programs used, in [0, 1]."""
        now, own = self._used()
        spent = [b - a for a, b in zip(self._machine_start, now, strict=True)]
        fields = dict(zip(now._fields, spent, strict=True))
        total = sum(fields[name] for name in ("user", "system", "idle", "iowait") if name in fields)
        busy = fields["user"] + fields["system"] - (own - self._own_start)
        return float(max(0.0, busy / total)) if total else 0.0
