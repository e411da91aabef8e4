"""The provider `torchvision`: image classification sets of torchvision.datasets, by their own download code."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from ...config.schema.data import DataConfig
from ...core.errors import UserError
from ..downloader import Upstream
from ..remarks import Remark
from .bundled_provider import FILES
from .source import Example
from .torchvision_compat import fetching_through, file_addresses, file_names

# By part, the names that upstream's splits may have; the first one that a data set accepts is used.
_SPLITS = {"train": ("train", "trainval"), "validation": ("val", "valid"), "test": ("test", "val", "valid")}
_HOSTS = {
    "mnist": ("ossci-datasets.s3.amazonaws.com", "yann.lecun.com"),
    "fashion_mnist": ("fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
    "kmnist": ("codh.rois.ac.jp",),
    "cifar10": ("www.cs.toronto.edu",),
}
_FILES = {"cifar10": ("cifar-10-python.tar.gz",)}
# Data sets without one image and one class per example: refused before gigabytes are fetched.
_UNLABELLED = [
    "CLEVRClassification",
    "CelebA",
    "Kinetics",
    "Kitti",
    "LFWPairs",
    "Middlebury2014Stereo",
    "MovingMNIST",
    "PhotoTour",
    "SBDataset",
    "SBU",
    "VOCDetection",
    "VOCSegmentation",
    "WIDERFace",
]
# Parameters of a data set that data.options may not set.
_RESERVED = {"self", "root", "download", "transform", "target_transform", "transforms", "loader", "args", "kwargs"}


@dataclass(frozen=True)
class TorchvisionSource:
    """A data set of torchvision, see `Source`."""

    datasets: Mapping[str, Any]
    """By part, a `torchvision.datasets.VisionDataset`."""
    classes: tuple[str, ...] | None
    slow: bool = False
    remarks: Sequence[Remark] = ()

    @property
    def parts(self) -> dict[str, int]:
        """See `Source`."""
        return {part: len(dataset) for part, dataset in self.datasets.items()}

    def examples(self, part: str) -> Iterator[Example]:
        """See `Source`."""
        dataset = self.datasets[part]
        for number in range(len(dataset)):
            name = f"{part} {number}"
            try:
                image, label = dataset[number]
            except Exception as error:  # the label is unknown, and unused: loading the image raises the error
                yield Example(name, 0, partial(_fail, error))
            else:
                yield Example(name, int(label), lambda image=image: image)  # type: ignore[misc]


def _fail(error: Exception) -> NoReturn:
    raise error


def fetch(data: DataConfig, upstream: Upstream) -> None:
    """Fetch and verify the files with the data set's own code; discard what it unpacks. Raises `UserError`."""
    with opened(data, upstream):
        pass


def addresses(data: DataConfig) -> list[str]:
    """Return the addresses that a data set's files may come from. Raises `UserError` for an unknown data set."""
    if hosts := _HOSTS.get(data.name):
        return [f"https://{host}" for host in hosts]
    return file_addresses(_find(data.name))


@contextmanager
def opened(data: DataConfig, upstream: Upstream) -> Iterator[TorchvisionSource]:
    """Unpack the files in `upstream` into a scratch folder, and open them. Raises `UserError`."""
    if hosts := _HOSTS.get(data.name):
        upstream.expect(_FILES.get(data.name, FILES))
        upstream.require_any(hosts)  # before torchvision, which takes seconds to import
    dataset_class = _find(data.name)
    with upstream.unpacking() as scratch:
        with fetching_through(upstream, dataset_class), upstream.explained(f"torchvision's {dataset_class.__name__}"):
            upstream.expect(file_names(dataset_class))
            datasets = _open_parts(dataset_class, scratch, data.options)
            image, label = next(iter(datasets.values()))[0]
        if not isinstance(image, Image.Image | np.ndarray) or not hasattr(label, "__index__"):
            raise UserError(
                f"data.name = {data.name}: torchvision's {dataset_class.__name__} gives {type(image).__name__} with "
                f"{type(label).__name__}; allowed: a set of images with one class each"
            )
        classes = getattr(datasets["train"], "classes", None)
        yield TorchvisionSource(datasets, tuple(map(str, classes)) if classes else None)


def _find(name: str) -> Any:
    """Return the class of a data set by its name in any case, with or without `_` and `-`. Raises `UserError`."""
    from torchvision import datasets

    def plain(text: str) -> str:
        return text.replace("_", "").replace("-", "").casefold()

    classes = {
        plain(candidate): getattr(datasets, candidate)
        for candidate in set(datasets.__all__) - set(_UNLABELLED)
        if inspect.isclass(getattr(datasets, candidate)) and "download" in _parameters(getattr(datasets, candidate))
    }
    if plain(name) not in classes:
        allowed = ", ".join(sorted(dataset_class.__name__ for dataset_class in classes.values()))
        raise UserError(
            f"data.name = {name}: not a set of labelled images that torchvision downloads; allowed: {allowed}"
        )
    return classes[plain(name)]


def _parameters(dataset_class: Any) -> set[str]:
    """Return the names of the constructor's parameters, and of its bases' as long as they accept `**kwargs`."""
    names: set[str] = set()
    for base in dataset_class.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters
            names |= set(parameters)
            if not any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
                break
    return names


def _open_parts(dataset_class: Any, scratch: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the opened data sets by part. Raises `UserError` for an unknown or missing option."""

    def make(**part: Any) -> Any:
        return dataset_class(root=str(scratch), download=True, **{**options, **part})

    parameters = _parameters(dataset_class) - _RESERVED
    if unknown := sorted(options.keys() - parameters):
        allowed = ", ".join(sorted(parameters)) or "none"
        name = f"data.options.{unknown[0]} = {options[unknown[0]]!r}"
        raise UserError(f"{name}: {dataset_class.__name__} has no such option; allowed: {allowed}")
    if dataset_class.__name__ == "EMNIST" and "split" not in options:  # the only set with another required option
        raise UserError(
            "data.options.split: EMNIST needs one; allowed: byclass, bymerge, balanced, letters, digits, mnist"
        )
    if "train" in parameters and "train" not in options:
        return {"train": make(train=True), "test": make(train=False)}
    if "split" not in parameters or "split" in options:
        return {"train": make()}
    return _open_splits(make)


def _open_splits(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the opened data sets by part; leave out a part that has no split of any of its names."""
    datasets: dict[str, Any] = {}
    taken: set[str] = set()
    for part in ("train", "test", "validation"):
        for split in [name for name in _SPLITS[part] if name not in taken]:
            try:
                datasets[part] = make(split=split)
            except ValueError as error:  # raised before anything is fetched; it lists what is allowed
                if "split" not in str(error) or (part == "train" and split == _SPLITS[part][-1]):
                    raise
                continue
            taken.add(split)
            break
    return datasets
