"""Everything that leans on what torchvision.datasets does not document (seen in 0.29.2): read this when that changes.

tests/test_compat.py has a test for each function, which says what to do when it breaks.
"""

import inspect
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ..downloader import Upstream


def file_names(dataset_class: Any) -> list[str]:
    """Return the names of the files that it asks for, where it tells them in one of the usual ways."""
    resources, single = getattr(dataset_class, "resources", ()), getattr(dataset_class, "filename", None)
    if isinstance(resources, list | tuple) and resources:
        return [str(url).rpartition("/")[2] for url, _ in resources]
    return [single] if isinstance(single, str) else []


@contextmanager
def fetching_through(upstream: Upstream, dataset_class: Any) -> Iterator[None]:
    """Let torchvision ask `upstream` for files in place of the network. Its own code checks them as it always does."""
    from torchvision.datasets import utils

    wanted: dict[str, str | None] = {}
    check, from_drive = utils.check_integrity, utils.download_file_from_google_drive

    def check_integrity(path: Any, md5: str | None = None) -> bool:
        wanted[str(path)] = md5  # asked before a file is fetched, and after
        return bool(check(path, md5))

    def retrieve(url: str, path: Any, *_: Any, **__: Any) -> None:
        upstream.place(url, Path(path), name=Path(path).name, checksum=wanted.get(str(path)))

    def drive(file_id: str, root: Any, filename: Any = None, md5: str | None = None) -> None:
        name = str(filename or file_id)
        if not upstream.sealed and upstream.mirror is None and not (upstream.folder / name).exists():
            from_drive(file_id, str(upstream.folder), name, md5)
        url = f"https://drive.google.com/uc?id={file_id}"
        upstream.place(url, Path(root) / name, name=name, checksum=md5)

    replacements: dict[str, Callable[..., Any]] = {
        "check_integrity": check_integrity,
        "_urlretrieve": retrieve,
        "_get_redirect_url": lambda url, max_hops=3: url,
        "download_file_from_google_drive": drive,
    }
    importers = {inspect.getmodule(base) for base in dataset_class.__mro__} - {utils}
    copies = [  # a data set's module may have imported them by name
        (module, name)
        for module in importers
        if module is not None and module.__name__.startswith("torchvision.datasets")
        for name in replacements
        if hasattr(module, name)
    ]
    with ExitStack() as exchanged:
        for module, name in [*((utils, name) for name in replacements), *copies]:
            exchanged.enter_context(patch.object(module, name, replacements[name]))
        # torchvision unpacks without a filter, which follows `../` and links out of the folder (PEP 706)
        exchanged.enter_context(patch.object(tarfile.TarFile, "extraction_filter", staticmethod(tarfile.data_filter)))
        yield
