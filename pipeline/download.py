"""Stage `download`: the upstream files into `data/raw`."""

import shutil
import sys

from .config import DataConfig
from .data.obtain import RAW
from .data.providers import fetch
from .data.upstream import AGAIN
from .entry import stage


@stage("download", "data")
def main(*, data: DataConfig) -> None:
    """Fetch and verify the upstream files of `data`; `data/raw` appears whole or not at all."""
    building = RAW.with_name("raw.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        fetch(data, building)
        shutil.rmtree(RAW, ignore_errors=True)
        building.rename(RAW)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if data.provider == "folder":  # DVC does not look at what is outside of the repository
        print(f"{data.root}: after a change of its images {AGAIN}")


if __name__ == "__main__":
    main(sys.argv[1:])
