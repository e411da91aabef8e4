"""Everything that leans on what tensorflow-datasets does not document (seen in 4.9.10): read this when that changes.

tests/test_compat.py has a test for each function, which says what to do when it breaks.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ..downloader import Upstream


def split_generators(builder: Any, manager: Any) -> dict[str, Any] | None:
    """Return, by the name of each split, an iterable of keys and examples; None for a set made with Apache Beam.

    What the download manager has fetched already is not fetched again.
    """
    if "pipeline" in inspect.signature(builder._split_generators).parameters:
        return None
    found = builder._split_generators(manager)
    if not isinstance(found, dict):  # the older way to say it
        found = {str(split.name): builder._generate_examples(**split.gen_kwargs) for split in found}
    generators = {str(name): generator for name, generator in found.items()}
    return generators if all(hasattr(generator, "__iter__") for generator in generators.values()) else None


@contextmanager
def fetching_through(upstream: Upstream, manager: Any) -> Iterator[None]:
    """Let a `DownloadManager` ask `upstream` for files in place of the network; it verifies them as it always does.

    Raises what `Upstream.place` raises, but for OSError: RuntimeError.
    """
    from tensorflow_datasets.core.download import checksums, download_manager, downloader, extractor

    class Downloader(downloader._Downloader):  # type: ignore[misc]
        def download(self, url: str, destination_path: Any, verify: bool = True) -> Any:
            """In this thread, so that an interruption, or the first file that cannot be had, is the end of it."""
            self._pbar_url.update_total(1)
            known = manager._url_infos.get(url)
            name = (known.filename if known else None) or url.rstrip("/").rpartition("/")[2]
            path = Path(destination_path) / name
            try:
                upstream.place(url, path, name=name, checksum=known.checksum if known else None)
            except OSError as error:
                raise RuntimeError(str(error)) from error  # no other address is known
            self._pbar_url.update(1)
            found = downloader.DownloadResult(type(destination_path)(path), checksums.compute_url_info(path))
            return downloader.promise.Promise.resolve(found)

    fetcher, unpacker = Downloader(), extractor._Extractor()
    with (
        patch.object(download_manager, "get_downloader", lambda *_, **__: fetcher),
        patch.object(extractor, "get_extractor", lambda *_, **__: unpacker),
    ):
        try:
            yield
        except BaseException:
            unpacker._executor.shutdown(cancel_futures=True)  # or it would write into a folder that is being removed
            raise
