"""Stage `speed`: both frameworks take turns on one machine, block by block, and are timed.

Training in one stage and then in the other compares two moments of the machine as much as two frameworks. Here both are
loaded, each in a process of its own; one computes while the other waits, A B, B A, A B, ...; each ratio is of two
neighbouring blocks, so that what slows the machine down for a while slows both. Compilation and warm-up are timed
apart. It leaves `results/speed/speed.json`.
"""

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from .config import ModelConfig, TrainConfig
from .config.schema import SpeedConfig
from .data.dataset import Dataset
from .data.obtain import PREPARED
from .data.plan import EpochPlan, draw_epoch
from .entry import stage
from .errors import UserError
from .models import classifier as doors
from .models.architecture import Architecture
from .models.classifier import Classifier
from .progress import steps
from .statistics import geometric_ratio
from .timing import latencies, seconds

KINDS: Final = ("training", "inference", "latency")
_UNITS: Final = {"training": "images", "inference": "images", "latency": "calls"}
_SHARES: Final = {"training": 1.0, "inference": 0.5, "latency": 0.2}
"""Of `compare.speed.block_seconds`: how long a block of each kind takes."""
_CHUNK: Final = 512
_MOST_IMAGES: Final = 8192
_MOST_BYTES: Final = 1 << 28  # of images of a split that are loaded
FRAMEWORKS: Final = ("tensorflow", "pytorch")


@stage("speed", "model", "train", "compare.speed")
def main(*, model: ModelConfig, train: TrainConfig, speed: SpeedConfig) -> None:
    """Measure, write, print."""
    dataset = Dataset.open(PREPARED)
    Architecture.of(model, dataset)  # refuses a network that does not fit
    document = measure(dataset, model, train, speed)
    output = Path("results/speed")
    output.mkdir(parents=True, exist_ok=True)
    (output / "speed.json").write_text(json.dumps(document, indent=2) + "\n")
    for kind in KINDS:
        mean, low, high = (document["ratios"][kind][key] for key in ("mean", "low", "high"))
        print(f"{kind}: {' / '.join(FRAMEWORKS)} = {mean:.2f} (95 % interval {low:.2f} to {high:.2f})")


def measure(dataset: Dataset, model: ModelConfig, train: TrainConfig, speed: SpeedConfig) -> dict[str, Any]:
    """Both frameworks in turn. Raises `UserError` where one of them cannot do what `train` asks for."""
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(name, dataset, model, train)) for name in FRAMEWORKS}
        for worker in workers.values():
            worker.ask("open")  # until then both have been importing at once
        ready = {name: worker.ask("prepare") for name, worker in workers.items()}  # in turn, and timed
        paces = {kind: [ready[name]["pace"][kind] for name in FRAMEWORKS] for kind in KINDS}
        sizes = {kind: _block_size(kind, paces[kind], speed, _most_images(dataset)) for kind in KINDS}
        rounds: list[dict[str, dict[str, list[float]]]] = []
        waited, idle = dict.fromkeys(FRAMEWORKS, 0.0), dict.fromkeys(FRAMEWORKS, 0.0)
        others = OtherPrograms([*workers.values()])
        with steps("speed", speed.rounds, "rounds") as progress:
            for number in range(speed.rounds):
                order = FRAMEWORKS if number % 2 == 0 else FRAMEWORKS[::-1]
                row: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
                for kind in KINDS:
                    for name in order:
                        (other,) = (w for n, w in workers.items() if n != name)
                        before, began = other.cpu_seconds(), time.perf_counter()
                        row[kind][name] = workers[name].ask(kind, sizes[kind])
                        waited[other.name] += time.perf_counter() - began
                        idle[other.name] += other.cpu_seconds() - before
                rounds.append(row)
                progress()
        others_share = others.cpu_share()
    document = _document(ready, sizes, rounds, {name: idle[name] / waited[name] for name in FRAMEWORKS})
    return document | {"others_cpu_share": others_share}


def _document(
    ready: dict[str, Any], sizes: dict[str, int], rounds: Sequence[dict[str, Any]], idle: dict[str, float]
) -> dict[str, Any]:
    images = {"training": sizes["training"] * next(iter(ready.values()))["batch_size"], "inference": sizes["inference"]}
    sides: dict[str, Any] = {}
    for name in FRAMEWORKS:
        calls = np.array([seconds for row in rounds for seconds in row["latency"][name]]) * 1000
        p50, p95 = np.percentile(calls, (50, 95))
        rates = {
            f"{kind}_images_per_second": float(np.median([count / row[kind][name][0] for row in rounds]))
            for kind, count in images.items()
        }
        sides[name] = {
            **rates,
            "latency_p50_milliseconds": float(p50),
            "latency_p95_milliseconds": float(p95),
            "idle_cpu_share": idle[name],
            **{key: value for key, value in ready[name].items() if key != "pace"},
        }
    a, b = FRAMEWORKS
    ratios = {}
    for kind in KINDS:
        middle = np.median if kind == "latency" else np.sum  # of calls, one is easily interrupted
        ratios[kind] = asdict(geometric_ratio([float(middle(row[kind][b]) / middle(row[kind][a])) for row in rounds]))
    return {"a": a, "b": b, "blocks": sizes, "units": _UNITS, "sides": sides, "ratios": ratios, "rounds": rounds}


def _most_images(dataset: Dataset) -> int:
    """How many images are predicted at once, at most: whole chunks."""
    return min(_MOST_IMAGES, max(1, _MOST_BYTES // math.prod(dataset.image_shape) // _CHUNK) * _CHUNK)


def _block_size(kind: str, paces: Sequence[float], speed: SpeedConfig, most: int) -> int:
    """So many steps, images or calls take the slower side a block's time; both get the same."""
    size = max(1, int(speed.block_seconds * _SHARES[kind] / max(paces)))
    if kind == "inference":
        return min(most, -(-size // _CHUNK) * _CHUNK)
    return max(size, 5) if kind == "latency" else size


class _Worker:
    def __init__(self, name: str, process: Any, connection: Connection) -> None:
        self.name = name
        self._connection = connection
        self._process = psutil.Process(process.pid)

    def ask(self, what: str, amount: int = 0) -> Any:
        """Have it done and wait for the answer. Raises what the worker refused with."""
        try:
            self._connection.send((what, amount))
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the {self.name} worker ended unexpectedly") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cpu_seconds(self) -> float:
        """CPU time that it has used."""
        times = self._process.cpu_times()
        return float(times.user + times.system)


class OtherPrograms:
    """How busy the machine is with them, since this was made."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers
        self._all, self._own = self._used()

    def _used(self) -> tuple[Any, float]:
        own = sum(worker.cpu_seconds() for worker in self._workers) + time.process_time()
        return psutil.cpu_times(), own

    def cpu_share(self) -> float:
        """Of all cores' time since the start, what neither the workers nor this process used; 0 to 1."""
        now, own = self._used()
        spent = [b - a for a, b in zip(self._all, now, strict=True)]
        fields = dict(zip(now._fields, spent, strict=True))
        total = sum(fields[name] for name in ("user", "system", "idle", "iowait") if name in fields)
        busy = fields["user"] + fields["system"] - (own - self._own)
        return float(max(0.0, busy / total)) if total else 0.0


@contextmanager
def _worker(name: str, dataset: Dataset, model: ModelConfig, train: TrainConfig) -> Iterator[_Worker]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, name, dataset, model, train), daemon=True)
    process.start()
    there.close()
    try:
        yield _Worker(name, process, here)
    finally:
        here.close()
        process.join(10)
        process.kill()


def _serve(connection: Connection, name: str, dataset: Dataset, model: ModelConfig, train: TrainConfig) -> None:
    try:
        bench = _Bench(name, dataset, model, train)
        while True:
            what, amount = connection.recv()
            connection.send({"open": bench.open, "prepare": bench.prepare}.get(what, partial(bench.run, what))(amount))
    except UserError as error:
        connection.send(error)
    except (EOFError, KeyboardInterrupt):
        return  # the parent has ended, or was interrupted


class _Bench:
    """One framework, ready to be timed."""

    def __init__(self, name: str, dataset: Dataset, model: ModelConfig, train: TrainConfig) -> None:
        architecture = Architecture.of(model, dataset)
        self.classifier: Classifier = doors.create(name, architecture, train)
        training, test = dataset.split("train"), dataset.split("test")
        some = max(train.batch_size, _MOST_BYTES // (training.images.nbytes // len(training.images)))
        images, labels = training.images[:some], training.labels[:some]
        self.classifier.attach(images, labels)
        doors.initialise(self.classifier, 0)
        plan = draw_epoch(train, examples=len(labels), seed=0, epoch=0)
        self.batch_size = min(train.batch_size, len(labels))
        self.plan = plan.segment(0, max(1, plan.full_steps))
        most = _most_images(dataset)
        self.images = np.resize(test.images[:most], (most, *dataset.image_shape))
        self.position = 0

    def open(self, _: int) -> None:
        """Answer as soon as everything is imported."""

    def prepare(self, _: int) -> dict[str, Any]:
        """Compile, warm up, and find each kind's pace in seconds per step, image or call."""
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
        """Seconds of the block; of `latency` the seconds of each call, with one image."""
        if kind == "training":
            plan = self._steps(amount)
            return [seconds(lambda: self.classifier.train_epoch(plan))]
        if kind == "inference":
            return [seconds(lambda: self.classifier.predict(self.images[:amount]))]
        return latencies(self.classifier, self.images, amount)

    def _steps(self, count: int) -> EpochPlan:
        """The next steps of an endless epoch."""
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


if __name__ == "__main__":
    main(sys.argv[1:])
