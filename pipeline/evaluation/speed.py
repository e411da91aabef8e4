"""Speed: the frameworks take turns on one machine, block by block, and each block is timed.

Timing one framework after the other compares two moments of the machine as much as two frameworks. Here every framework
is loaded in a process of its own, and one computes while the others wait: A B, B A, A B, ... Each ratio is of two
blocks of one round, so that whatever slows the machine down for a while slows both. Compilation and warm-up are timed
separately.
"""

import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
import psutil

from ..config.schema.compare import SpeedConfig
from ..config.schema.model import ModelConfig
from ..config.schema.train import TrainConfig
from ..core import frameworks
from ..core.errors import UserError
from ..core.frameworks import Framework
from ..core.progress import steps
from ..data.dataset import Dataset
from ..data.plan import EpochPlan, draw_epoch
from ..models import backend
from ..models.architecture import Architecture
from ..models.backend import Classifier
from .latency import latencies, seconds
from .speed_result import ArmSpeed, Round, SpeedResult
from .summary import Ratio, geometric_ratio

KINDS: Final = ("training", "inference", "latency")
_UNITS: Final = {"training": "images", "inference": "images", "latency": "calls"}
_SHARES: Final = {"training": 1.0, "inference": 0.5, "latency": 0.2}
"""Length of a block of each kind, as a share of `compare.speed.block_seconds`."""
_CHUNK: Final = 512
"""Images that a backend predicts in one batch."""
_MOST_IMAGES: Final = 8192
_MOST_BYTES: Final = 1 << 28
"""Size of the images of a split that are loaded, at most."""


def measure(
    dataset: Dataset, model: ModelConfig, train: TrainConfig, speed: SpeedConfig, names: Sequence[str]
) -> SpeedResult:
    """Measure the frameworks `names` in turn; the first of them is the reference.

    Raises `UserError` if a framework cannot do what `train` asks for.
    """
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(name, dataset, model, train)) for name in names}
        for worker in workers.values():
            worker.ask("open")  # wait until all have imported, which they do in parallel
        prepared = {name: worker.ask("prepare") for name, worker in workers.items()}  # in turn, as this is timed
        paces = {kind: [prepared[name]["pace"][kind] for name in names] for kind in KINDS}
        sizes = {kind: _block_size(kind, paces[kind], speed, _most_images(dataset)) for kind in KINDS}
        waited, idle = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        other_programs, rounds = OtherPrograms([*workers.values()]), []
        with steps("speed", speed.rounds, "rounds") as progress:
            for number in range(speed.rounds):
                turn = number % len(names)
                order = [*names[turn:], *names[:turn]]
                rounds.append({kind: _take_turns(kind, sizes[kind], order, workers, waited, idle) for kind in KINDS})
                progress()
        share = other_programs.cpu_share()
    return _result(prepared, sizes, rounds, {name: idle[name] / waited[name] for name in names}, share)


def _take_turns(
    kind: str,
    size: int,
    order: Sequence[str],
    workers: Mapping[str, "_Worker"],
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


def _result(
    prepared: dict[str, Any],
    sizes: dict[str, int],
    rounds: Sequence[Round],
    idle: dict[str, float],
    others_cpu_share: float,
) -> SpeedResult:
    reference, *others = prepared
    images = {"training": sizes["training"] * prepared[reference]["batch_size"], "inference": sizes["inference"]}
    arms = {}
    for name, facts in prepared.items():
        calls = np.array([seconds for row in rounds for seconds in row["latency"][name]]) * 1000
        p50, p95 = np.percentile(calls, (50, 95))
        rates = {
            f"{kind}_images_per_second": float(np.median([count / row[kind][name][0] for row in rounds]))
            for kind, count in images.items()
        }
        latencies = {"latency_p50_milliseconds": float(p50), "latency_p95_milliseconds": float(p95)}
        reported = {key: value for key, value in facts.items() if key != "pace"}
        arms[name] = ArmSpeed(**rates, **latencies, idle_cpu_share=idle[name], **reported)
    ratios = {arm: {kind: _ratio(kind, rounds, reference, arm) for kind in KINDS} for arm in others}
    return SpeedResult(
        reference=reference,
        arms=arms,
        ratios=ratios,
        blocks=sizes,
        units=dict(_UNITS),
        rounds=list(rounds),
        others_cpu_share=others_cpu_share,
    )


def _ratio(kind: str, rounds: Sequence[Round], reference: str, arm: str) -> Ratio:
    middle = np.median if kind == "latency" else np.sum  # the median, as a single call is easily interrupted
    return geometric_ratio([float(middle(row[kind][arm]) / middle(row[kind][reference])) for row in rounds])


def _most_images(dataset: Dataset) -> int:
    """Return how many images are predicted at once, at most: a multiple of `_CHUNK`."""
    return min(_MOST_IMAGES, max(1, _MOST_BYTES // math.prod(dataset.image_shape) // _CHUNK) * _CHUNK)


def _block_size(kind: str, paces: Sequence[float], speed: SpeedConfig, most: int) -> int:
    """Return how many steps, images or calls fill a block for the slowest framework; all get the same number.

    `paces`: seconds per step, image or call of each framework; `most`: images of an inference block, at most.
    """
    size = max(1, int(speed.block_seconds * _SHARES[kind] / max(paces)))
    if kind == "inference":
        return min(most, -(-size // _CHUNK) * _CHUNK)
    return max(size, 5) if kind == "latency" else size


class _Worker:
    """The process of one framework, as the measuring process sees it."""

    def __init__(self, name: str, process: Any, connection: Connection) -> None:
        self.name = name
        self._connection = connection
        self._process = psutil.Process(process.pid)

    def ask(self, what: str, amount: int = 0) -> Any:
        """Send a request and wait for the answer. Raises the error that the worker answers with."""
        try:
            self._connection.send((what, amount))
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the {self.name} worker ended unexpectedly") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the process has used."""
        times = self._process.cpu_times()
        return float(times.user + times.system)


class OtherPrograms:
    """The CPU time that other programs use from now on."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
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


@contextmanager
def _worker(name: str, dataset: Dataset, model: ModelConfig, train: TrainConfig) -> Iterator[_Worker]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, frameworks.find(name), dataset, model, train), daemon=True)
    process.start()
    there.close()
    try:
        yield _Worker(name, process, here)
    finally:
        here.close()
        process.join(10)
        process.kill()


def _serve(
    connection: Connection, framework: Framework, dataset: Dataset, model: ModelConfig, train: TrainConfig
) -> None:
    frameworks.register(framework)  # a spawned process lacks what the parent registered at run time
    try:
        bench = _Bench(framework.name, dataset, model, train)
        while True:
            what, amount = connection.recv()
            connection.send({"open": bench.open, "prepare": bench.prepare}.get(what, partial(bench.run, what))(amount))
    except UserError as error:
        connection.send(error)
    except (EOFError, KeyboardInterrupt):
        return  # the parent has closed the pipe, ended, or was interrupted


class _Bench:
    """One framework in its own process, ready to be timed."""

    def __init__(self, name: str, dataset: Dataset, model: ModelConfig, train: TrainConfig) -> None:
        architecture = Architecture.of(model, dataset)
        self.classifier: Classifier = backend.create(name, architecture, train)
        training, test = dataset.split("train"), dataset.split("test")
        count = max(train.batch_size, _MOST_BYTES // (training.images.nbytes // len(training.images)))
        images, labels = training.images[:count], training.labels[:count]
        self.classifier.load_training_data(images, labels)
        backend.initialise(self.classifier, 0)
        plan = draw_epoch(train, examples=len(labels), seed=0, epoch=0)
        self.batch_size = min(train.batch_size, len(labels))
        self.plan = plan.segment(0, max(1, plan.full_steps))
        most = _most_images(dataset)
        self.images = np.resize(test.images[:most], (most, *dataset.image_shape))
        self.position = 0

    def open(self, _: int) -> None:
        """Do nothing: the answer tells that everything is imported."""

    def prepare(self, _: int) -> dict[str, Any]:
        """Compile, warm up, and return the facts of `ArmSpeed` with the pace of each kind.

        `pace`: seconds per step, image or call.
        """
        compile_seconds = self.classifier.compile([self.batch_size])
        began = time.perf_counter()
        pace = {}
        for kind, trial in (("training", 8), ("inference", min(4 * _CHUNK, len(self.images))), ("latency", 20)):
            self.run(kind, trial)
            pace[kind] = float(np.sum(self.run(kind, trial))) / trial
        device = self.classifier.device
        return {
            "pace": pace,
            "batch_size": self.batch_size,
            "compile_seconds": compile_seconds,
            "warm_up_seconds": time.perf_counter() - began,
            "execution": self.classifier.execution,
            "device": device.name,
            "threads": device.threads,
            "cpus": len(os.sched_getaffinity(0)),
        }

    def run(self, kind: str, amount: int) -> list[float]:
        """Run a block of `amount` steps, images or calls; return its seconds, for `latency` those of each call."""
        if kind == "training":
            plan = self._steps(amount)
            return [seconds(lambda: self.classifier.train_epoch(plan))]
        if kind == "inference":
            return [seconds(lambda: self.classifier.predict(self.images[:amount]))]
        return latencies(self.classifier, self.images, amount)

    def _steps(self, count: int) -> EpochPlan:
        """Return the next `count` steps of the epoch, which starts over at its end."""
        rows = (self.position + np.arange(count)) % self.plan.steps
        self.position += count
        examples = (rows[:, None] * self.batch_size + np.arange(self.batch_size)).reshape(-1)
        return EpochPlan(
            self.plan.order[examples],
            self.batch_size,
            self.plan.learning_rate[rows],
            self.plan.dropout_keys[rows],
            self.plan.augmentation[examples],
        )
