"""`python tests/benchmark_memory.py [MiB of images]`: peak memory while the data grow, 1, 4 and 16 times as many.

Random images of 64x64 in colour are prepared, and trained on for one epoch in each framework, every step in a process
of its own. At most 64 MiB of images may lie on the device. Needs 35 times as much disk as there are images at first.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHAPE, CLASSES, LIMIT = (64, 64, 3), 10, 64
NETWORK = {
    "name": "small",
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "layers": [
        {"type": "conv", "filters": 32, "kernel_size": 3, "activation": "relu"},
        {"type": "max_pool", "size": 4},
        {"type": "flatten"},
        {"type": "dense", "units": "classes"},
    ],
}


class Random:
    """A `Source` that makes its images when they are asked for."""

    classes = None
    slow = False
    remarks = ()

    def __init__(self, count: int) -> None:
        self.parts = {"train": count, "test": 1000}

    def examples(self, part: str) -> Iterator[object]:
        """Noise."""
        from pipeline.data.providers import Example

        generator = np.random.default_rng(len(part))
        for number in range(self.parts[part]):
            image = generator.integers(0, 256, SHAPE, np.uint8)
            yield Example(str(number), number % CLASSES, lambda image=image: image)


def step(what: str, count: int, folder: Path) -> None:
    """One of the steps; prints the peak of this process's resident memory in MiB."""
    from pipeline.config.compose import compose
    from pipeline.config.schema.model import ModelConfig
    from pipeline.data.build import write_dataset
    from pipeline.data.dataset import Dataset
    from pipeline.data.loader import BatchLoader, predict
    from pipeline.data.plan import draw_epoch

    config = compose(["train.epochs=1", "train.batch_size=256", f"train.memory_mebibytes={LIMIT}"])
    if what == "prepare":
        write_dataset(Random(count), config.data, folder)  # type: ignore[arg-type]
    else:
        from pipeline.models import backend
        from pipeline.models.architecture import Architecture

        dataset = Dataset.open(folder)
        model = ModelConfig.model_validate(NETWORK)
        classifier = backend.create(what, Architecture.of(model, dataset), config.train)
        split = dataset.split("train")
        feed = BatchLoader(classifier, split, LIMIT << 20, config.train.batch_size)
        backend.initialise(classifier, 0)
        for piece in feed.pieces(draw_epoch(config.train, examples=len(split.labels), seed=0, epoch=0)):
            classifier.train_epoch(piece)
        predict(classifier, dataset.split("validation").images)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main(mebibytes: int) -> None:
    """Print a row for each size: peaks in MiB."""
    print("| images | MiB | prepare | tensorflow | pytorch |\n|-|-|-|-|-|")
    for factor in (1, 4, 16):
        count = mebibytes * factor * 2**20 // int(np.prod(SHAPE))
        with tempfile.TemporaryDirectory(dir=".") as folder:
            peaks = []
            for what in ("prepare", "tensorflow", "pytorch"):
                command = [sys.executable, __file__, what, str(count), folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                peaks.append(done.stdout.split()[-1])
        print(f"| {count:,} | {mebibytes * factor:,} | {' | '.join(peaks)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        step(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 256)
