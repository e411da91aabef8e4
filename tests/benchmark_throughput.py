"""`python tests/benchmark_throughput.py tensorflow|pytorch [batch sizes]`: training beside its ceiling.

The ceiling is a step of the same network with the same optimiser on one fixed batch that lies ready as floats on the
device: no gather, no scaling, no counting. Both are measured in turn, round after round; medians over the rounds. Needs
`data/prepared` (dvc repro prepare).
"""

import sys
import time
from collections.abc import Callable
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
        variables = classifier._variables

        def step() -> Any:
            with tf.GradientTape() as tape:
                outputs = classifier._network(fixed, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
                loss = tf.reduce_mean(losses)
            classifier._optimizer.apply(tape.gradient(loss, variables), scalars)
            return loss

        return tf.function(step, jit_compile=True)  # type: ignore[no-any-return]
    import torch

    fixed_x, fixed_y, key = torch.from_numpy(x), torch.from_numpy(labels), torch.tensor(0)

    def step_pytorch() -> Any:
        classifier._optimizer.zero_grad(set_to_none=True)
        _, loss = classifier._outputs_and_loss(fixed_x, fixed_y, key)
        loss.backward()
        classifier._optimizer.step()
        return loss.detach()

    return step_pytorch


def main(framework: str, batch_sizes: list[int]) -> None:
    """Print images/s of both, and their ratio."""
    data = Dataset.open(Path("data/prepared"))
    train = data.split("train")
    count = len(train.labels)
    for batch_size in batch_sizes:
        config = compose([f"framework={framework}", f"train.batch_size={batch_size}"])
        classifier = backend.create(framework, Architecture(config.model, data.image_shape, 10), config.train)
        classifier.load_training_data(train.images[:], train.labels)
        classifier.compile([batch_size, count % batch_size])
        backend.initialise(classifier, 0)
        images, labels = np.array(train.images[:batch_size]), np.array(train.labels[:batch_size])
        step = ceiling_of(framework, classifier, images, labels)
        float(step())
        backend.initialise(classifier, 0)
        through, ceiling = [], []
        for _ in range(ROUNDS):
            plan = draw_epoch(config.train, examples=count, seed=0, epoch=0)
            through.append(count / classifier.train_epoch(plan).seconds)
            state = classifier.state()
            steps = STEPS_OF_THE_CEILING // batch_size
            began = time.perf_counter()
            for _ in range(steps):
                loss = step()
            float(loss)
            ceiling.append(steps * batch_size / (time.perf_counter() - began))
            classifier.restore(state)
        seam, top = np.median(through), np.median(ceiling)
        print(f"{framework} batch {batch_size}: {seam:,.0f} images/s, ceiling {top:,.0f}, ratio {seam / top:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], [int(size) for size in sys.argv[2:]] or [64, 256])
