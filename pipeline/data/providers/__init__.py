"""Where examples come from: upstream files into a raw folder (`fetch`), and a raw folder read (`opened`)."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...config.schema.data import DataConfig
from ..downloader import Upstream
from .source import ArraySource, Example, Source

# A module is imported when it is asked for: the libraries' take seconds.
_PROVIDERS: Final = {name: f"{__name__}.{name}_provider" for name in ("bundled", "torchvision", "tfds", "folder")}

__all__ = ["ArraySource", "Example", "Source", "fetch", "opened"]


def fetch(data: DataConfig, folder: Path) -> None:
    """Put the upstream files into `folder`, which exists and is empty, each verified by the library that knows it.

    Raises `UserError` where they cannot be had, or are not what their checksums say.
    """
    importlib.import_module(_PROVIDERS[data.provider]).fetch(data, Upstream(folder, mirror=data.mirror))


@contextmanager
def opened(data: DataConfig, folder: Path) -> Iterator[Source]:
    """Read what `fetch` has put into `folder`. Raises `UserError` naming the bad file."""
    with importlib.import_module(_PROVIDERS[data.provider]).opened(data, Upstream(folder, sealed=True)) as source:
        yield source
