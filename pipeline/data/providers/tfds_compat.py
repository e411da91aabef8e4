"""All code that depends on undocumented behaviour of tensorflow-datasets (seen in 4.9.10).

Read it first when the version changes.

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
    """Return the iterables of (key, example) by split; None if they cannot be iterated, as of a set of Apache Beam.

    `builder`: a `DatasetBuilder`. `manager`: a `DownloadManager`, which fetches no file a second time.
    """
    if "pipeline" in inspect.signature(builder._split_generators).parameters:
        return None
    splits = builder._split_generators(manager)
    if not isinstance(splits, dict):  # the older form, a list of `SplitGenerator`
        splits = {str(split.name): builder._generate_examples(**split.gen_kwargs) for split in splits}
    generators = {str(name): generator for name, generator in splits.items()}
    return generators if all(hasattr(generator, "__iter__") for generator in generators.values()) else None


@contextmanager
def fetching_through(upstream: Upstream, manager: Any) -> Iterator[None]:
    """Make a `DownloadManager` take files from `upstream`, not from the network; it still verifies their checksums.

    Raises what `Upstream.place` raises, but RuntimeError in place of OSError.
    """
    from tensorflow_datasets.core.download import checksums, download_manager, downloader, extractor

    class Downloader(downloader._Downloader):  # type: ignore[misc]
        def download(self, url: str, destination_path: Any, verify: bool = True) -> Any:
            """Place a file, in this thread: an interruption or the first failure ends the download."""
            self._pbar_url.update_total(1)
            info = manager._url_infos.get(url)
            name = (info.filename if info else None) or url.rstrip("/").rpartition("/")[2]
            path = Path(destination_path) / name
            try:
                upstream.place(url, path, name=name, checksum=info.checksum if info else None)
            except OSError as error:
                raise RuntimeError(str(error)) from error  # there is no other address to try
            self._pbar_url.update(1)
            result = downloader.DownloadResult(type(destination_path)(path), checksums.compute_url_info(path))
            return downloader.promise.Promise.resolve(result)

    fetcher, unpacker = Downloader(), extractor._Extractor()
    with (
        patch.object(download_manager, "get_downloader", lambda *_, **__: fetcher),
        patch.object(extractor, "get_extractor", lambda *_, **__: unpacker),
    ):
        try:
            yield
        except BaseException:
            unpacker._executor.shutdown(cancel_futures=True)  # else it would write into a folder that is being removed
            raise
