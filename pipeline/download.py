"""Download and verify the upstream files of `data` (stage `download`).

Writes data/raw, atomically. `data.mirror` names a folder or a URL with the files.
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
    """Download into `data/raw`. Raises `UserError` if a file is unavailable or not the expected one."""
    with atomic_directory(RAW) as building:
        fetch(data, building)
    if data.provider == "folder":  # DVC does not track files outside the repository
        print(f"{data.root}: after a change of its images {AGAIN}")


if __name__ == "__main__":
    main(sys.argv[1:])
