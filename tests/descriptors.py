"""Which files this process has open. Their number alone says little: threads of libraries close others at any time."""

from contextlib import suppress
from pathlib import Path


def opened(place: Path) -> list[str]:
    """Files whose paths begin with `place` that are open, each as often as it is; removed ones end in `(deleted)`."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(str(place))]
