"""The provider `tfds`: image classification sets of tensorflow-datasets, by their own download and reading code.

The examples are taken as a data set's own code generates them. The library's next step, to write them as PNG into its
own files and to read these back, takes a minute for MNIST, and writes other bytes each time.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...config.schema.data import DataConfig
from ...core.errors import UserError
from ...core.quiet import without_notices
from ..downloader import Upstream
from ..images import Raw, decode
from ..remarks import Remark
from .source import Example
from .tfds_compat import fetching_through, split_generators

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class TfdsSource:
    """A data set of tensorflow-datasets, see `Source`."""

    builder: Any
    manager: Any
    counts: Mapping[str, int]
    """Number of examples by part, see `Source.parts`."""
    classes: tuple[str, ...] | None
    slow: bool = True
    remarks: Sequence[Remark] = ()

    @property
    def parts(self) -> Mapping[str, int]:
        """See `Source`."""
        return self.counts

    def examples(self, part: str) -> Iterator[Example]:
        """See `Source`."""
        image_key, label_key = self.builder.info.supervised_keys
        label_of = self.builder.info.features[label_key].encode_example
        for key, example in _generators(self.builder, self.manager)[part]:
            image = example[image_key]
            yield Example(f"{part} {key}", int(label_of(example[label_key])), lambda image=image: _decode(image))  # type: ignore[misc]


def fetch(data: DataConfig, upstream: Upstream) -> None:
    """Fetch and verify the files with the data set's own code. Raises `UserError`."""
    with opened(data, upstream):
        pass


def addresses(data: DataConfig) -> list[str]:
    """Return the addresses of a data set's files. Raises `UserError` for an unknown data set."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_notices(), tempfile.TemporaryDirectory() as scratch:
        return list(_builder(data, Path(scratch)).url_infos)


@contextmanager
def opened(data: DataConfig, upstream: Upstream) -> Iterator[TfdsSource]:
    """Unpack the files in `upstream` into a scratch folder, and open them. Raises `UserError`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with upstream.unpacking() as scratch, without_notices():
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()
        with upstream.explained(f"tensorflow-datasets' {data.name}"):
            builder = _builder(data, scratch)
            manager = tfds.download.DownloadManager(
                download_dir=f"{scratch}/downloads",
                extract_dir=f"{scratch}/extracted",
                url_infos=builder.url_infos,
                dataset_name=builder.name,
                force_checksums_validation=True,
            )
            with fetching_through(upstream, manager):
                generators = _generators(builder, manager)
            counts = {part: _count(builder, part) for part in _PARTS if part in generators}
        names = getattr(builder.info.features[builder.info.supervised_keys[1]], "names", None)
        yield TfdsSource(builder, manager, counts, tuple(names) if names else None)


def _builder(data: DataConfig, scratch: Path) -> Any:
    """Return the set's `DatasetBuilder`. Raises `UserError` for an unknown name or option, or another kind of set."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(data.name, data_dir=f"{scratch}/prepared", try_gcs=False, **data.options)
    except tfds.core.DatasetNotFoundError as error:
        close = _close_names(data.name)
        raise UserError(
            f"data.name = {data.name}: not a data set of tensorflow-datasets"
            + (f"; did you mean {close}?" if close else "; tfds.list_builders() lists them")
        ) from error
    except ValueError as error:
        configs = [config.name for config in tfds.builder_cls(data.name.partition("/")[0]).BUILDER_CONFIGS]
        if "/" not in data.name or not configs or data.name.partition("/")[2] in configs:
            raise
        raise UserError(f"data.name = {data.name}: has no such configuration; allowed: {', '.join(configs)}") from error
    except TypeError as error:
        if not data.options:
            raise
        raise UserError(f"data.options = {data.options}: {' '.join(str(error).split())}") from error
    info = builder.info
    keys = info.supervised_keys
    kinds = [type(info.features[key]).__name__ for key in keys] if keys and len(keys) == 2 else []
    if kinds != ["Image", "ClassLabel"]:
        raise UserError(
            f"data.name = {data.name}: its supervised keys are {keys} of {kinds or 'no kind'}; allowed: a set with "
            "('Image', 'ClassLabel')"
        )
    return builder


def _close_names(name: str) -> str:
    import difflib

    import tensorflow_datasets as tfds

    return ", ".join(difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3))


def _generators(builder: Any, manager: Any) -> dict[str, Any]:
    """Return the iterables of (key, example) by part. Raises `UserError` if the set has no usable split `train`."""
    generators = split_generators(builder, manager)
    if generators is None:
        raise UserError(f"data.name = {builder.name}: is made with Apache Beam, which is not supported")
    if "train" not in generators:
        raise UserError(f"data.name = {builder.name}: has the splits {', '.join(generators)}; allowed: one named train")
    if "test" not in generators and "validation" in generators:
        generators["test"] = generators.pop("validation")
    return generators


def _count(builder: Any, part: str) -> int:
    """Return the number of examples by the library's metadata; 0 if they have none."""
    splits = builder.info.splits
    name = "validation" if part == "test" and "test" not in splits else part
    return int(splits[name].num_examples) if name in splits else 0


def _decode(image: Any) -> Raw:
    """Decode an image that is an array, encoded bytes, an open file or a path."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, bytes):
        import io

        image = io.BytesIO(image)
    return decode(image if hasattr(image, "read") else os.fspath(image))
