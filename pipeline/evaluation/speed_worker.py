"""The process of one framework whose speed is measured: it imports, compiles, warms up, and runs blocks when asked."""

import math
import multiprocessing
import os
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
import psutil

from ..config.schema.model import ModelConfig
from ..config.schema.train import TrainConfig
from ..core import frameworks
from ..core.errors import UserError
from ..core.frameworks import Framework
from ..data.dataset import Dataset
from ..data.plan import EpochPlan, draw_epoch
from ..models import backend
from ..models.architecture import Architecture
from ..models.backend import Classifier
from ..ranks.classifier import create as create_ranked
from .latency import latencies, seconds

ALONE: Final = "alone"
"""The kind of block in which one process trains what `train.world` ranks train in those of the kind `training`."""
_MOST_IN_BATCH: Final = 512
_MOST_IMAGES: Final = 8192
_MOST_BYTES: Final = 1 << 28
"""Size of the images of a split that are loaded, at most."""


def chunk(dataset: Dataset) -> int:
    """Return a number of images that hold whole batches of every backend: 512, or a smaller power of two."""
    fitting = min(_MOST_IN_BATCH, _MOST_BYTES // math.prod(dataset.image_shape))
    return 1 << (max(1, fitting).bit_length() - 1)


def most_images(dataset: Dataset) -> int:
    """Return how many images are predicted at once, at most: a multiple of `chunk`."""
    size = chunk(dataset)
    return min(_MOST_IMAGES, max(1, _MOST_BYTES // math.prod(dataset.image_shape) // size) * size)


class Worker:
    """A process that was started for one framework, as the measuring process sees it."""

    def __init__(self, name: str, dataset: Dataset, model: ModelConfig, train: TrainConfig) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a fork would share the addresses of its parent's libraries
        self._connection, there = context.Pipe()
        arguments = (there, frameworks.find(name), dataset, model, train)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        there.close()
        self._usage, self._ranks = psutil.Process(self._process.pid), train.world > 1

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
        """Return the CPU seconds that the process and its other ranks have used."""
        processes = [self._usage, *(self._usage.children(recursive=True) if self._ranks else [])]
        times = [process.cpu_times() for process in processes]
        return float(sum(each.user + each.system for each in times))

    def close(self) -> None:
        """End the process at once: it has nothing to keep, and a framework's own end takes a second."""
        self._connection.close()
        self._process.kill()
        self._process.join()


def _serve(
    connection: Connection, framework: Framework, dataset: Dataset, model: ModelConfig, train: TrainConfig
) -> None:
    frameworks.register(framework)  # a spawned process lacks what the parent registered at run time
    try:
        bench = _Bench(framework.name, dataset, model, train)
        while True:
            what, amount = connection.recv()
            requests = {"open": bench.open, "compile": bench.compile, "warm_up": bench.warm_up}
            connection.send(requests.get(what, partial(bench.run, what))(amount))
    except UserError as error:
        connection.send(error)
    except (EOFError, KeyboardInterrupt):
        return  # the parent has closed the pipe, ended, or was interrupted


class _Bench:
    """One framework in its own process, ready to be timed."""

    def __init__(self, name: str, dataset: Dataset, model: ModelConfig, train: TrainConfig) -> None:
        architecture = Architecture.of(model, dataset)
        self.classifier: Classifier = create_ranked(name, architecture, train)
        training, test = dataset.split("train"), dataset.split("test")
        count = max(train.batch_size, _MOST_BYTES // (training.images.nbytes // len(training.images)))
        images, labels = training.images[:count], training.labels[:count]
        self.classifier.load_training_data(images, labels)
        backend.initialise(self.classifier, 0)
        self.alone = self._of_one_process(name, architecture, train, images, labels) if train.world > 1 else None
        plan = draw_epoch(train, examples=len(labels), seed=0, epoch=0)
        self.batch_size = min(train.batch_size, len(labels))
        self.plan = plan.segment(0, max(1, plan.full_steps))
        self.chunk, most = chunk(dataset), most_images(dataset)
        self.images = np.resize(test.images[:most], (most, *dataset.image_shape))
        self.position = 0

    def _of_one_process(
        self, name: str, architecture: Architecture, train: TrainConfig, images: np.ndarray, labels: np.ndarray
    ) -> Classifier:
        """Return what trains the same in this process alone, with the threads that each rank has."""
        threads = self.classifier.device.threads
        alone = backend.create(name, architecture, train.model_copy(update={"world": 1, "threads": threads}))
        alone.load_training_data(images, labels)
        backend.initialise(alone, 0)
        return alone

    def open(self, _: int) -> None:
        """Do nothing: the answer tells that everything is imported."""

    def compile(self, _: int) -> float:
        """Compile the step, and return the seconds that it took."""
        seconds_taken = self.classifier.compile([self.batch_size])
        if self.alone:
            self.alone.compile([self.batch_size])
        return seconds_taken

    def warm_up(self, _: int) -> dict[str, Any]:
        """Warm up every kind of block, and return facts of `ArmSpeed` with the pace of each kind.

        `pace`: seconds per step, image or call.
        """
        began = time.perf_counter()
        pace = {}
        trials = {"training": 8, "inference": min(2 * self.chunk, len(self.images)), "latency": 20}
        trials |= {ALONE: 8} if self.alone else {}
        for kind, trial in trials.items():
            self.run(kind, trial // 2)
            pace[kind] = float(np.sum(self.run(kind, trial))) / trial
        device = self.classifier.device
        return {
            "pace": pace,
            "batch_size": self.batch_size,
            "warm_up_seconds": time.perf_counter() - began,
            "execution": self.classifier.execution,
            "device": device.name,
            "threads": device.threads,
            "world": self.classifier.train.world,
            "cpus": len(os.sched_getaffinity(0)),
        }

    def run(self, kind: str, amount: int) -> list[float]:
        """Run a block of `amount` steps, images or calls; return its seconds, for `latency` those of each call."""
        if kind == "training":
            plan = self._steps(amount)
            return [seconds(lambda: self.classifier.train_epoch(plan))]
        if kind == ALONE:
            alone, plan = self.alone, self._steps(amount)
            assert alone
            return [seconds(lambda: alone.train_epoch(plan))]
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
