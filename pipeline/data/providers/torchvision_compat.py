"""All code that depends on undocumented behaviour of torchvision.datasets (seen in 0.29.2).

Read it first when the version changes.

tests/test_compat.py has a test for each function, which says what to do when it breaks.
"""

import ast
import inspect
import re
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ..downloader import Upstream


def file_names(dataset_class: Any) -> list[str]:
    """Return the names of a data set's files from its `resources` or `filename`; empty if it has neither."""
    resources, single = getattr(dataset_class, "resources", ()), getattr(dataset_class, "filename", None)
    if isinstance(resources, list | tuple) and resources:
        return [str(url).rpartition("/")[2] for url, _ in resources]
    return [single] if isinstance(single, str) else []


def file_addresses(dataset_class: Any) -> list[str]:
    """Return the URLs in the code of a data set's class; empty if they are written elsewhere."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(dataset_class)))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if re.fullmatch(r"https?://\S+", text)]


@contextmanager
def fetching_through(upstream: Upstream, dataset_class: Any) -> Iterator[None]:
    """Make torchvision take files from `upstream`, not from the network; it still verifies their checksums."""
    from torchvision.datasets import utils

    checksums: dict[str, str | None] = {}
    check, from_drive = utils.check_integrity, utils.download_file_from_google_drive

    def check_integrity(path: Any, md5: str | None = None) -> bool:
        checksums[str(path)] = md5  # torchvision calls this before it fetches a file, and after
        return bool(check(path, md5))

    def retrieve(url: str, path: Any, *_: Any, **__: Any) -> None:
        upstream.place(url, Path(path), name=Path(path).name, checksum=checksums.get(str(path)))

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
    copies = [  # names that a data set's module has imported from `utils`
        (module, name)
        for module in importers
        if module is not None and module.__name__.startswith("torchvision.datasets")
        for name in replacements
        if hasattr(module, name)
    ]
    with ExitStack() as patches:
        for module, name in [*((utils, name) for name in replacements), *copies]:
            patches.enter_context(patch.object(module, name, replacements[name]))
        # torchvision unpacks without a filter, which follows `../` and links out of the folder (PEP 706)
        patches.enter_context(patch.object(tarfile.TarFile, "extraction_filter", staticmethod(tarfile.data_filter)))
        yield
