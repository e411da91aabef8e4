"""Measure the speed of the frameworks, which take turns on one machine, block by block (stage `speed`).

Reads data/prepared, writes results/speed. The processes are started anew `compare.speed.restarts` times, and the
intervals are over the restarts: more of them narrow it. `compare.speed.rounds` and `compare.speed.block_seconds` are
the work of each.
"""

import sys

from .config.call import stage
from .config.schema.compare import SpeedConfig
from .config.schema.model import ModelConfig
from .config.schema.train import TrainConfig
from .core import frameworks
from .core.paths import PREPARED, RESULTS
from .data.dataset import Dataset
from .evaluation.speed import measure
from .models.architecture import Architecture


@stage("speed", "model", "train", "compare.speed", description=__doc__)
def main(*, model: ModelConfig, train: TrainConfig, speed: SpeedConfig) -> None:
    """Measure, write `speed.json`, and print the ratio of the reference to each framework."""
    dataset = Dataset.open(PREPARED)
    Architecture.of(model, dataset)  # raises `UserError` if the network does not fit
    result = measure(dataset, model, train, speed, frameworks.names())
    result.write(RESULTS / "speed/speed.json")
    for name, measured in result.arms.items():
        if share := measured.efficiency:
            total = measured.training_images_per_second
            interval = f"95 % interval {' to '.join(share.ends)}"
            print(
                f"{name}: {measured.world} ranks train {total:,.0f} images/s, {total / measured.world:,.0f} each; "
                f"one process {measured.alone_images_per_second:,.0f}; scaling efficiency {share.mean:.2f} ({interval})"
            )
    for arm, ratios in result.ratios.items():
        for kind, ratio in ratios.items():
            interval = f"95 % interval {' to '.join(ratio.ends)}, {ratio.n} restarts"
            print(f"{kind}: {result.reference} / {arm} = {ratio.mean:.2f} ({interval})")


if __name__ == "__main__":
    main(sys.argv[1:])
