"""Prepare the upstream files: decode, sort by content, split, store (stage `prepare`).

Reads data/raw, writes data/prepared, atomically.
"""

import sys

from .config.call import stage
from .config.schema.data import DataConfig
from .core.files import atomic_directory
from .core.paths import PREPARED, RAW
from .data.build import write_dataset
from .data.cache import stamp
from .data.dataset import summary
from .data.providers import opened


@stage("prepare", "data", description=__doc__)
def main(*, data: DataConfig) -> None:
    """Prepare `data/raw` into `data/prepared` and print a summary."""
    with atomic_directory(PREPARED) as building, opened(data, RAW) as source:
        facts = write_dataset(source, data, building).facts
    stamp(PREPARED)
    print(summary(facts))


if __name__ == "__main__":
    main(sys.argv[1:])
