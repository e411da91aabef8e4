"""The seam between the frameworks: what every backend offers, in NumPy arrays, and functions to create, save, load."""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import numpy as safetensors

from ..config.schema.model import ModelConfig
from ..config.schema.train import SgdConfig, TrainConfig
from ..core import fingerprint, frameworks
from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..data.plan import EpochPlan, require_visible
from .architecture import Architecture
from .device import require_device
from .share import Share


@dataclass(frozen=True)
class Device:
    """The device that a classifier computes on."""

    type: str
    """`cpu` or `gpu`."""
    name: str
    """The GPU's name, or `cpu`."""
    threads: int
    """Host threads that its operators may use."""


@dataclass(frozen=True)
class EpochResult:
    """The result of training on a plan, step by step."""

    loss: np.ndarray
    """float64 (steps,): mean loss of each batch before its update, in nats."""
    correct: np.ndarray
    """int64 (steps,): correctly classified examples of each batch before its update."""
    seconds: float
    """Wall time, including the work of the device."""


@dataclass(frozen=True)
class State:
    """The exact state that training continues from: canonical names and layouts, in the training precision."""

    weights: dict[str, np.ndarray]
    """All of `Architecture.arrays`, by name."""
    slots: dict[str, dict[str, np.ndarray]]
    """Running values of the optimiser, by slot (see `slots_of`), then by name of the trainable parameter."""
    step: int
    """Number of optimiser steps taken."""


@dataclass(frozen=True)
class Probe:
    """One training step up to its gradients."""

    outputs: np.ndarray
    """(batch, classes): outputs of the last layer."""
    loss: float
    gradients: dict[str, np.ndarray]
    """By name of the trainable parameter, before clipping."""


class Classifier(Protocol):
    """A network with its optimiser on one device.

    The constructor takes an `Architecture` and a `TrainConfig`; that of a framework that trains one network in several
    processes (`Framework.ranks`) also a `Share`. With a share, `train_epoch` and `probe` take whole batches, compute
    the rows of this rank, and return outputs, loss and correct answers of these: the sums over the ranks are those of
    the batch. The gradients are those of the whole batch.
    """

    architecture: Architecture
    train: TrainConfig
    device: Device
    execution: str
    """`eager`, `graph` or `compiled`: `auto` resolved."""
    predict_batch: int
    """Images that `predict` computes at once: `Architecture.predict_batch`."""

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Copy training data to the device: images uint8 (N, height, width, channels), labels int64 (N,)."""

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """Compile and warm up the step for batches of these sizes, keep the state, and return the seconds it took.

        Needs `load_training_data`.
        """

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """Take one optimiser step per batch of the plan, with a single host synchronisation.

        Needs `load_training_data`.
        """

    def iter_batches(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield images and labels of each batch of the plan as the network receives them, copied from the device.

        Images: (batch, height, width, channels) in [0, 1], in the training precision; labels: int64 (batch,). Needs
        `load_training_data`.
        """

    def probe(self, plan: EpochPlan) -> Probe:
        """Compute the first step of the plan in training mode, without its update, and keep the state.

        Needs `load_training_data`.
        """

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return outputs of the last layer (M, classes), in the training precision.

        `images`: uint8 (M, height, width, channels).
        """

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace all of `Architecture.arrays`, given by canonical name and in canonical layout."""

    def state(self) -> State:
        """Return a copy of weights, slots and step."""

    def restore(self, state: State) -> None:
        """Replace the state, which may come from another framework."""

    def export(self) -> Any:
        """Return the network as the framework's native object, on the CPU and in inference mode.

        It maps images (N, height, width, channels) in [0, 1], in the training precision, to (N, classes).
        """

    @staticmethod
    def gpu() -> tuple[str, str]:
        """Return the name of the GPU that the framework would use, or an empty one and why it would use none.

        Computes on it, so it is called in a process of its own, see `device`.
        """

    def peak_gpu_bytes(self) -> int | None:
        """Return the largest memory of the GPU that tensors have taken in this process; None on the CPU."""


@contextmanager
def refusing_nondeterminism(title: str, kind: type[Exception]) -> Iterator[None]:
    """Raise `UserError` where a framework says, by an error of its `kind`, that an operation is not deterministic."""
    try:
        yield
    except kind as error:
        if "determinis" not in str(error):
            raise
        said = str(error).splitlines()[0].split(". ")[0]
        raise UserError(
            f"train.deterministic = true: {title}: {said}; allowed here: false, or train.device=cpu"
        ) from error


def create(framework: str, architecture: Architecture, train: TrainConfig, share: Share | None = None) -> Classifier:
    """Create the backend of a framework in this process; `share`: of `train.world` ranks, see `ranks.create`.

    Raises `UserError` as `implementation` does, or if the framework cannot train under these settings.
    """
    backend = implementation(framework, architecture, train)
    if train.world > 1 and share is None:
        raise ValueError(f"train.world = {train.world}: the other ranks are missing")
    classifier: Classifier = backend(architecture, train, share) if share else backend(architecture, train)
    return classifier


def implementation(framework: str, architecture: Architecture, train: TrainConfig) -> Any:
    """Import the framework, and return its classifier's class.

    Raises `UserError` if it is unknown or not installed, or lacks the device or the execution.
    """
    require_visible(train.augment, architecture.image_shape)
    require_device(train, framework)
    module, _, name = frameworks.find(framework).backend.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"framework = {framework}: the package {error.name!r} is not installed; run `make setup`"
        ) from error


def initialise(classifier: Classifier, seed: int) -> None:
    """Reset the classifier: weights drawn from `seed`, slots zero, no step taken."""
    architecture, dtype = classifier.architecture, classifier.train.precision
    weights = {name: value.astype(dtype) for name, value in architecture.initial_weights(seed).items()}
    slots = {
        slot: {parameter.name: np.zeros(parameter.shape, dtype) for parameter in architecture.parameters}
        for slot in slots_of(classifier.train)
    }
    classifier.restore(State(weights, slots, 0))


def unit_scale(precision: str) -> float:
    """Return 1 / 255 rounded to the precision: the factor that scales uint8 to [0, 1].

    Backends multiply by it and do not divide by 255: XLA turns that division into this product, which differs from the
    quotient in the last bit of every third value.
    """
    return float(np.dtype(precision).type(1) / np.dtype(precision).type(255))


def slots_of(train: TrainConfig) -> tuple[str, ...]:
    """Return the names of the optimiser's running values: `momentum` and `velocity`, as far as it has them."""
    if isinstance(train.optimizer, SgdConfig):
        return ("momentum",) if train.optimizer.momentum else ()
    return ("momentum", "velocity")


def model_folder(output: Path, seed: int) -> Path:
    """Return the folder of the model that was trained with `seed`, below the output folder of a training."""
    return output / "models" / f"seed_{seed}"


def save(classifier: Classifier, framework: str, directory: Path) -> None:
    """Write `classifier.json` and `weights.safetensors`: no code, no pickle, and loadable by every framework."""
    directory.mkdir(parents=True, exist_ok=True)
    architecture = classifier.architecture
    description = {
        "framework": framework,
        "model": architecture.model.model_dump(),
        "image_shape": architecture.image_shape,
        "classes": architecture.classes,
        "channel_mean": architecture.channel_mean,
        "channel_std": architecture.channel_std,
        "train": classifier.train.model_dump(),
        "parameters": architecture.parameter_count,
        "execution": classifier.execution,
        "device": asdict(classifier.device),
    }
    content = safetensors.save(classifier.state().weights)
    write_bytes(directory / "weights.safetensors", content)
    write_json(directory / "classifier.json", description | {"weights": fingerprint.of_bytes(content, 32)})


def load(directory: Path, framework: str | None = None, threads: int | None = None) -> Classifier:
    """Return the saved classifier, in `framework` (default: the one that wrote it), on a device that is here.

    `threads`: on the CPU, with this many threads; None: as it was trained. Raises `UserError` that names the folder.
    """
    architecture, weights, description = read_saved(directory)
    try:
        train = _movable(TrainConfig.model_validate(description["train"]))
        framework = frameworks.find(framework or description["framework"]).name
    except Exception as error:  # pydantic and the registry raise several types
        raise UserError(f"{directory}: not a saved classifier: {error}") from error
    if threads is not None:
        train = train.model_copy(update={"threads": threads, "device": "cpu"})
    classifier = create(framework, architecture, train)
    classifier.set_weights(weights)
    return classifier


def read_saved(directory: Path) -> tuple[Architecture, dict[str, np.ndarray], dict[str, Any]]:
    """Return architecture, weights and description of a saved network, without a framework.

    Raises `UserError` that names the folder.
    """
    try:
        description, weights = _read(directory)
        architecture = _architecture(description)
    except Exception as error:  # json, safetensors, pydantic and the file system raise many types
        raise UserError(f"{directory}: not a saved classifier: {error}") from error
    _require_arrays(directory, weights, architecture)
    return architecture, weights, description


def _architecture(description: Mapping[str, Any]) -> Architecture:
    model = ModelConfig.model_validate(description["model"])
    moments = (tuple(description.get(key, ())) for key in ("channel_mean", "channel_std"))
    return Architecture(model, tuple(description["image_shape"]), description["classes"], *moments)


def load_weights(classifier: Classifier, directory: Path) -> None:
    """Replace the weights of a classifier by those that `save` wrote. Raises `UserError` that names the folder."""
    try:
        _, weights = _read(directory)
    except Exception as error:  # see `read_saved`
        raise UserError(f"{directory}: not a saved classifier: {error}") from error
    _require_arrays(directory, weights, classifier.architecture)
    classifier.set_weights(weights)


def _movable(train: TrainConfig) -> TrainConfig:
    """Return the settings without what may not be here: a GPU, a way to train on one, other ranks."""
    device = "auto" if train.device == "gpu" else train.device
    execution = "eager" if train.execution == "eager" else "auto"
    return train.model_copy(update={"device": device, "execution": execution, "world": 1})


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    description: dict[str, Any] = json.loads((directory / "classifier.json").read_text(encoding="utf-8"))
    content = (directory / "weights.safetensors").read_bytes()
    if description["weights"] != fingerprint.of_bytes(content, 32):
        raise UserError("weights.safetensors is not the file that was saved with classifier.json")
    return description, safetensors.load(content)


def _require_arrays(directory: Path, weights: Mapping[str, np.ndarray], architecture: Architecture) -> None:
    stored = {name: value.shape for name, value in weights.items()}
    declared = {parameter.name: parameter.shape for parameter in architecture.arrays}
    if stored != declared:
        raise UserError(f"{directory / 'weights.safetensors'}: holds {stored}; allowed: {declared}")
