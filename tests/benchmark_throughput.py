"""`python tests/benchmark_throughput.py tensorflow|pytorch [batch sizes] [--models ...]`: training beside its ceiling.

The ceiling is a step of the same network with the same optimiser on one fixed batch that lies ready as floats on the
device: no gather, no scaling, no counting. Both are measured in turn, round after round; medians over the rounds. Needs
`data/prepared` (dvc repro prepare).
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.compose import compose
from pipeline.data.dataset import Dataset
from pipeline.data.plan import draw_epoch
from pipeline.models import backend
from pipeline.models.architecture import Architecture

ROUNDS, STEPS_OF_THE_CEILING = 5, 6400


def ceiling_of(framework: str, classifier: Any, images: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    """One step on a fixed batch, in the framework's own objects."""
    x = images.astype(np.float32) / 255
    if framework == "tensorflow":
        import tensorflow as tf

        fixed, targets = tf.constant(x), tf.constant(labels)
        scalars = tf.constant([1e-3, 1.0], tf.float32)
        variables, key = classifier._variables, tf.constant(0, tf.int64)

        def step() -> Any:
            with tf.GradientTape() as tape:
                outputs = classifier._network(fixed, training=True, dropout_key=key)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
                loss = tf.reduce_mean(losses)
            classifier._update(tape.gradient(loss, variables), scalars)
            return loss

        compiled = classifier.execution == "compiled"
        return step if classifier.execution == "eager" else tf.function(step, jit_compile=compiled)  # type: ignore[no-any-return]
    import torch

    fixed_x, fixed_y, key = torch.from_numpy(x), torch.from_numpy(labels), torch.tensor(0)

    def step_pytorch() -> Any:
        classifier._optimizer.zero_grad(set_to_none=True)
        _, loss = classifier._outputs_and_loss(fixed_x, fixed_y, key)
        loss.backward()
        classifier._optimizer.step()
        return loss.detach()

    return step_pytorch


@contextmanager
def fits_of(
    classifier: Any, images: np.ndarray, labels: np.ndarray, size: int
) -> Iterator[dict[str, Callable[[], float]]]:
    """Yield functions that train the same network for an epoch by `keras.Model.fit`, and return images/s."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        model, data = Path(scratch) / "model.keras", Path(scratch) / "images.npz"
        classifier.export().save(model)
        np.savez(data, images=images, labels=labels)
        ways: dict[str, Callable[[], float]] = {}
        for way in ("plain", "xla"):
            threads = str(classifier.device.threads)
            command = [sys.executable, str(Path(__file__).with_name("keras_fit.py")), str(model), str(data)]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            process = stack.enter_context(subprocess.Popen([*command, str(size), threads, way], text=True, **pipes))
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            stack.callback(process.stdin.close)  # type: ignore[union-attr]
            ways[way] = partial(_epoch_of, process)
        yield ways


def _epoch_of(process: Any) -> float:
    process.stdin.write("epoch\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def arrays(shape: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The training split that is prepared, or as many random images of a shape such as 32x32x3."""
    if not shape:
        train = Dataset.open(Path("data/prepared")).split("train")
        return train.images[:], np.asarray(train.labels)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *map(int, shape.split("x"))), np.uint8)
    return images, np.arange(count, dtype=np.int64) % 10


def main() -> None:
    """Print images/s of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework")
    parser.add_argument("batch_sizes", nargs="*", type=int, default=[64, 256])
    parser.add_argument("--models", default="simple_cnn", help="such as simple_cnn,lenet5,resnet8")
    parser.add_argument("--executions", default="auto", help="such as graph,compiled")
    parser.add_argument("--shape", default="", help="of random images, such as 32x32x3; default: what is prepared")
    parser.add_argument("--count", type=int, default=4096, help="of random images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fit", action="store_true", help="also keras.Model.fit, in turn, see keras_fit.py")
    asked = parser.parse_args()
    images, labels = arrays(asked.shape, asked.count)
    for model, batch_size in itertools.product(asked.models.split(","), asked.batch_sizes):
        for execution in asked.executions.split(","):
            measure(asked, model, execution, batch_size, images, labels)


def measure(
    asked: argparse.Namespace, model: str, execution: str, batch_size: int, images: np.ndarray, labels: np.ndarray
) -> None:
    """Print a line for one network, execution and batch size."""
    framework, count = asked.framework, len(labels)
    config = compose([f"model={model}", f"train.batch_size={batch_size}", f"train.execution={execution}"])
    classifier = backend.create(framework, Architecture(config.model, images.shape[1:], 10), config.train)
    classifier.load_training_data(images, labels)
    compiled = classifier.compile([size for size in (batch_size, count % batch_size) if size])
    backend.initialise(classifier, 0)
    step = ceiling_of(framework, classifier, images[:batch_size], labels[:batch_size])
    float(step())
    backend.initialise(classifier, 0)
    through, ceiling = [], []
    fits: dict[str, list[float]] = {}
    with fits_of(classifier, images, labels, batch_size) if asked.fit else nullcontext({}) as ways:
        for _ in range(asked.rounds):
            for way, fit in ways.items():
                fits.setdefault(way, []).append(fit())
            plan = draw_epoch(config.train, examples=count, seed=0, epoch=0)
            through.append(count / classifier.train_epoch(plan).seconds)
            state = classifier.state()
            steps = min(STEPS_OF_THE_CEILING, count) // batch_size
            began = time.perf_counter()
            for _ in range(steps):
                loss = step()
            float(loss)
            ceiling.append(steps * batch_size / (time.perf_counter() - began))
            classifier.restore(state)
    seam, top = np.median(through), np.median(ceiling)
    resolved = f" = {classifier.execution}" if execution == "auto" else ""
    beside = "".join(f"; fit {way} {np.median(rates):,.0f}" for way, rates in fits.items())
    shown = f"{framework} {model} {execution}{resolved} {'x'.join(map(str, images.shape[1:]))} batch {batch_size}"
    print(
        f"{shown}: {seam:,.0f} images/s, ceiling {top:,.0f}, ratio {seam / top:.2f}; ready in {compiled:.1f} s{beside}",
        flush=True,
    )


if __name__ == "__main__":
    main()
