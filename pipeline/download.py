"""Stage `download`: the upstream files into `data/raw`."""

import shutil
import sys

from .config import DataConfig
from .data.obtain import RAW
from .data.providers import FILES, fetch
from .entry import stage
from .progress import steps


@stage("download", "data")
def main(*, data: DataConfig) -> None:
    """Fetch and verify the upstream files of `data`; `data/raw` appears whole or not at all."""
    building = RAW.with_name("raw.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        with steps("download", len(FILES), "files") as advance:
            fetch(data, building, advance)
        shutil.rmtree(RAW, ignore_errors=True)
        building.rename(RAW)
    finally:
        shutil.rmtree(building, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
