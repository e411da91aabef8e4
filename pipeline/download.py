"""Stage `download`: the upstream files into `data/raw`."""

import sys

from .config import DataConfig
from .data.obtain import RAW
from .data.providers import fetch
from .data.upstream import AGAIN
from .data.whole import replacing
from .entry import stage


@stage("download", "data")
def main(*, data: DataConfig) -> None:
    """Fetch and verify the upstream files of `data`; `data/raw` appears whole or not at all."""
    with replacing(RAW) as building:
        fetch(data, building)
    if data.provider == "folder":  # DVC does not look at what is outside of the repository
        print(f"{data.root}: after a change of its images {AGAIN}")


if __name__ == "__main__":
    main(sys.argv[1:])
