"""Prepare the upstream files: decode, put into content order, split, store (stage `prepare`).

Reads data/raw, writes data/prepared, which appears whole or not at all.
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
    """Prepare `data/raw` into `data/prepared`."""
    with atomic_directory(PREPARED) as building, opened(data, RAW) as source:
        facts = write_dataset(source, data, building).facts
    stamp(PREPARED)
    print(summary(facts))


if __name__ == "__main__":
    main(sys.argv[1:])
