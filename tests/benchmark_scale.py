"""Where each shipped network stops scaling: measured step times and bytes, and arithmetic for other machines.

    python tests/benchmark_scale.py [--gigabits 100] [--microseconds 20]

Measures on this machine the time of a training step with one thread and batches of 64, and the bytes that the ranks add
up in it. From a stated network it computes the share of a step that exchanging takes, by the usual model of a ring
(Patarasuk & Yuan 2009): 2 (W - 1) / W times the bytes at the bandwidth, plus 2 (W - 1) latencies, not overlapped with
the backward pass. The efficiency is step / (step + exchange), of a batch of 64 for each rank (weak scaling), and of one
batch of 4096 that the ranks share (strong scaling). docs/scale.md has what it printed.
"""

import argparse
import subprocess
import sys
import time

import numpy as np

NETWORKS = ("simple_cnn", "lenet5", "resnet8")
WORLDS = (8, 64, 512)
BATCH, SHARED = 64, 4096


def measured(framework: str, network: str) -> tuple[float, int, int]:
    """Seconds of a step, bytes of all gradients, bytes of an image."""
    from pipeline.config.compose import compose
    from pipeline.data.plan import draw_epoch
    from pipeline.models import backend
    from pipeline.models.architecture import Architecture

    config = compose([f"model={network}", "train.threads=1", f"train.batch_size={BATCH}", "train.epochs=1"])
    architecture = Architecture(config.model, (28, 28, 1), 10, (0.1,), (0.3,))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH * 40, 28, 28, 1), np.uint8)
    classifier = backend.create(framework, architecture, config.train)
    classifier.load_training_data(images, generator.integers(0, 10, len(images)))
    backend.initialise(classifier, 0)
    classifier.compile([BATCH])
    times = []
    for epoch in range(5):
        plan = draw_epoch(config.train, examples=len(images), seed=epoch, epoch=0)
        began = time.perf_counter()
        classifier.train_epoch(plan)
        times.append((time.perf_counter() - began) / plan.steps)
    return float(np.median(times)), 4 * architecture.parameter_count, int(images[0].nbytes)


def exchange_seconds(size: int, world: int, bits: float, latency: float) -> float:
    """Seconds of a ring that adds up `size` bytes."""
    return 2 * (world - 1) / world * size * 8 / bits + 2 * (world - 1) * latency


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabits", type=float, default=100.0, help="bandwidth of a rank's link")
    parser.add_argument("--microseconds", type=float, default=20.0, help="latency of a message")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*measured(*options.one))
        return
    bits, latency = options.gigabits * 1e9, options.microseconds * 1e-6
    print("| network | framework | step of 64, ms | gradients, MB |", end="")
    print("".join(f" weak {world} | strong {world} |" for world in WORLDS))
    print("|-|-|-|-|" + "-|-|" * len(WORLDS))
    for network in NETWORKS:
        for framework in ("tensorflow", "pytorch"):  # each in a process of its own
            command = [sys.executable, __file__, "--one", framework, network]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            step, size, _ = float(said[-3]), int(said[-2]), int(said[-1])
            cells = []
            for world in WORLDS:
                exchange = exchange_seconds(size, world, bits, latency)
                share = step * SHARED / BATCH / world
                cells += [f"{step / (step + exchange):.2f}", f"{share / (share + exchange):.2f}"]
            print(
                f"| {network} | {framework} | {step * 1e3:.2f} | {size / 1e6:.2f} | {' | '.join(cells)} |", flush=True
            )


if __name__ == "__main__":
    main()
