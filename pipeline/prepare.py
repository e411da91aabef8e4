"""Stage `prepare`: `data/raw` to canonical arrays in `data/prepared`."""

import shutil
import sys

from .config import DataConfig
from .data.dataset import summary
from .data.obtain import PREPARED, RAW
from .data.providers import opened
from .data.writing import write_dataset
from .entry import stage


@stage("prepare", "data")
def main(*, data: DataConfig) -> None:
    """Decode, put into content order, split, store; `data/prepared` appears whole or not at all."""
    building = PREPARED.with_name("prepared.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        with opened(data, RAW) as source:
            facts = write_dataset(source, data, building).facts
        shutil.rmtree(PREPARED, ignore_errors=True)
        building.rename(PREPARED)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print(summary(facts))


if __name__ == "__main__":
    main(sys.argv[1:])
