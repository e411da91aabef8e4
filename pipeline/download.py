"""Fetch and verify the upstream files of `data` (stage `download`).

Writes data/raw, which appears whole or not at all. `data.mirror` names a folder or a URL that holds the files.
"""

import sys

from .config.call import stage
from .config.schema.data import DataConfig
from .core.files import atomic_directory
from .core.paths import RAW
from .data.downloader import AGAIN
from .data.providers import fetch


@stage("download", "data", description=__doc__)
def main(*, data: DataConfig) -> None:
    """Fetch into `data/raw`."""
    with atomic_directory(RAW) as building:
        fetch(data, building)
    if data.provider == "folder":  # DVC does not look at what is outside of the repository
        print(f"{data.root}: after a change of its images {AGAIN}")


if __name__ == "__main__":
    main(sys.argv[1:])
