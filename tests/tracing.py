"""A process for each framework that traces what it is asked for: `python tests/tracing.py <framework>`."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from project_copy import ROOT, clean_environment

from pipeline.config.compose import compose
from pipeline.config.schema.model import ModelConfig
from pipeline.config.schema.parity import ParityConfig
from pipeline.core import frameworks
from pipeline.data.build import write_dataset
from pipeline.data.dataset import Dataset
from pipeline.data.providers import ArraySource
from pipeline.equality.levels import Level, compare_traces
from pipeline.equality.trace import Evidence, Trace, gather
from pipeline.models.architecture import Architecture


def noise(folder: Path, shape: tuple[int, int, int], classes: int = 3, count: int = 150) -> Path:
    """A prepared data set of random images."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    labels = np.arange(count, dtype=np.int64) % classes
    parts = {"train": (images, labels), "test": (images[:20], labels[:20])}
    folder.mkdir(parents=True)
    source = ArraySource(parts, tuple(map(str, range(classes))))
    write_dataset(source, compose(["data.validation_fraction=0.2"]).data, folder)
    return folder


def trace(framework: str, data: Path, output: Path, overrides: Sequence[str], model: Mapping[str, Any] | None) -> None:
    """Gather the evidence of one framework, in this process."""
    config, dataset = compose(overrides), Dataset.open(data)
    network = ModelConfig.model_validate(model) if model else config.model
    architecture = Architecture.of(network, dataset)
    gather(Evidence(framework, architecture, config.train, config.trace, dataset), output)


class Tracer:
    """A process that has loaded one framework, and traces on request."""

    def __init__(self, framework: str) -> None:
        self.framework = framework

    def __enter__(self) -> "Tracer":
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-u", __file__, self.framework],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def ask(self, data: Path, output: Path, overrides: Sequence[str] = (), model: Any = None) -> None:
        """Begin a trace; `answer` waits for it."""
        assert self._process.stdin is not None
        request = {"data": str(data), "output": str(output), "overrides": list(overrides), "model": model}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> None:
        """Wait for the trace that was asked for; fail as it failed."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("done"):
                return
            if line.startswith("failed"):
                raise AssertionError(f"{self.framework}: {json.loads(line.removeprefix('failed'))}")
        self._errors.seek(0)
        raise AssertionError(f"{self.framework}: {self._errors.read()[-3000:]}")


def compare(folder: Path, limits: ParityConfig | None = None) -> list[Level]:
    """Judge what both frameworks left in `folder`."""
    one, other = (Trace(framework, folder / framework) for framework in frameworks.names())
    return list(compare_traces(one, other, limits or compose().parity))


def main(framework: str) -> None:
    """Answer one request a line."""
    import traceback

    for line in sys.stdin:
        asked = json.loads(line)
        try:
            trace(framework, Path(asked["data"]), Path(asked["output"]), asked["overrides"], asked["model"])
            print("done")
        except Exception:
            print("failed", json.dumps(traceback.format_exc()))


if __name__ == "__main__":
    main(sys.argv[1])
