"""The providers of data sets: fetch upstream files into a raw folder, and open a raw folder."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ...config.schema.data import DataConfig
from ..downloader import Upstream
from .source import ArraySource, Example, Source

# Modules are imported on use: those of the libraries take seconds.
_PROVIDERS: Final = {name: f"{__name__}.{name}_provider" for name in ("bundled", "torchvision", "tfds", "folder")}

__all__ = ["ArraySource", "Example", "Source", "addresses", "fetch", "opened"]


def fetch(data: DataConfig, folder: Path) -> None:
    """Fetch the upstream files into the existing, empty `folder`; the provider verifies their checksums.

    Raises `UserError` if a file cannot be fetched or does not match its checksum.
    """
    importlib.import_module(_PROVIDERS[data.provider]).fetch(data, Upstream(folder, mirror=data.mirror))


def addresses(data: DataConfig) -> list[str]:
    """Return URLs that `fetch` may ask without a mirror, one for each host; empty for a data set without a download.

    Takes seconds for a data set whose library must be imported. Raises `UserError` if the data set is unknown.
    """
    module = importlib.import_module(_PROVIDERS[data.provider])
    urls: list[str] = module.addresses(data) if hasattr(module, "addresses") else []
    return list({urlsplit(url).netloc: url for url in reversed(urls)}.values())[::-1]


@contextmanager
def opened(data: DataConfig, folder: Path) -> Iterator[Source]:
    """Open the files that `fetch` put into `folder`. Raises `UserError` naming a file that is missing or invalid."""
    with importlib.import_module(_PROVIDERS[data.provider]).opened(data, Upstream(folder, sealed=True)) as source:
        yield source
