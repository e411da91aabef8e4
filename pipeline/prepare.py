"""Stage `prepare`: `data/raw` to canonical arrays in `data/prepared`."""

import sys

from .config import DataConfig
from .data.dataset import summary
from .data.obtain import PREPARED, RAW
from .data.providers import opened
from .data.whole import replacing
from .data.writing import write_dataset
from .entry import stage


@stage("prepare", "data")
def main(*, data: DataConfig) -> None:
    """Decode, put into content order, split, store; `data/prepared` appears whole or not at all."""
    with replacing(PREPARED) as building, opened(data, RAW) as source:
        facts = write_dataset(source, data, building).facts
    print(summary(facts))


if __name__ == "__main__":
    main(sys.argv[1:])
