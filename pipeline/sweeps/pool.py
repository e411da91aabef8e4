"""Run jobs of a sweep on this machine: in turn on the terminal, or several at a time, each with its own log."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Final, Self

from ..config.schema.whole import Config
from ..core import gpus
from .capacity import Capacity
from .processes import JobProcess

_WAIT_SECONDS: Final = 0.2  # between two looks whether a signal has arrived

Train = Callable[[Config, Path], int]
"""Trains a job into a folder, see `JobProcess.run`."""


class Pool:
    """Runs tasks that train a job each, in the order of `submit`, at most one per device at a time. A context manager.

    If its body ends with an error, the running jobs get SIGTERM, so that they save checkpoints, and no other begins.
    """

    def __init__(self, devices: Sequence[str | None]) -> None:
        """`devices`: one entry per job at a time: a value for `CUDA_VISIBLE_DEVICES`, or None to leave it as it is.

        With one entry, `submit` runs the task before it returns, and the job writes to the terminal.
        """
        self._free: SimpleQueue[str | None] = SimpleQueue()
        for device in devices:
            self._free.put(device)
        self.several = len(devices) > 1
        self._executor = ThreadPoolExecutor(len(devices), thread_name_prefix="job")
        self._futures: set[Future[None]] = set()
        self._processes: set[JobProcess] = set()
        self._lock, self._ending = Lock(), False

    @classmethod
    def of(cls, capacity: Capacity) -> Self:
        """Return a pool for as many jobs; each has a GPU, if there are any and several run at a time."""
        cards = gpus.visible() if capacity.jobs > 1 else []
        return cls([cards[position % len(cards)] if cards else None for position in range(capacity.jobs)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error:
            with self._lock:
                self._ending = True
                running = list(self._processes)
            if self.several and running:
                counted = f"{len(running)} running job{'s' * (len(running) > 1)}"
                print(f"ending {counted}, with a checkpoint each; run the same command to continue", flush=True)
            for process in running:
                process.end()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, task: Callable[[Train], None]) -> None:
        """Have a task run when its turn comes; it gets the function that trains."""
        if self.several:
            self._futures.add(self._executor.submit(task, self._train))
        else:
            task(self._train)

    def wait(self) -> None:
        """Wait for all tasks. Raises `KeyboardInterrupt` if a job was interrupted, and what a task raised."""
        while self._futures:
            done, self._futures = wait(self._futures, _WAIT_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()

    def _train(self, config: Config, output: Path) -> int:
        device = self._free.get()
        variables = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        process = JobProcess(config, output, self.several, variables)
        try:
            with self._lock:
                if self._ending:
                    raise KeyboardInterrupt
                self._processes.add(process)
            return process.run()
        finally:
            self._free.put(device)
            with self._lock:
                self._processes.discard(process)
