"""The seam between the frameworks: what every backend offers, in NumPy alone, and how one is opened, saved, loaded."""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import numpy as safetensors

from ..config.schema.model import ModelConfig
from ..config.schema.train import SgdConfig, TrainConfig
from ..core import fingerprint, frameworks
from ..core.errors import UserError
from ..core.files import write_json
from ..data.plan import EpochPlan, require_visible
from .architecture import Architecture


@dataclass(frozen=True)
class Device:
    """Where a classifier computes."""

    type: str
    """`cpu` or `gpu`."""
    name: str
    """The GPU's name, or `cpu`."""
    threads: int
    """Threads of the host that its operators may use."""


@dataclass(frozen=True)
class EpochResult:
    """What training on a plan left, step by step: `loss` float64 (steps,), `correct` int64 (steps,)."""

    loss: np.ndarray
    """Mean loss of each batch, before that batch's update."""
    correct: np.ndarray
    """Examples of each batch classified right, before that batch's update."""
    seconds: float
    """Wall time, the device's work included."""


@dataclass(frozen=True)
class State:
    """Everything that training continues from, exact: canonical names and layouts, in the training precision."""

    weights: dict[str, np.ndarray]
    slots: dict[str, dict[str, np.ndarray]]
    """The optimiser's running values, by name of the slot and of the trainable parameter."""
    step: int
    """Optimiser steps taken."""


@dataclass(frozen=True)
class Probe:
    """One step up to its gradients, which are not clipped yet."""

    outputs: np.ndarray
    """Of the last layer, (batch, classes)."""
    loss: float
    gradients: dict[str, np.ndarray]


class Classifier(Protocol):
    """A network with its optimiser on one device. The constructor takes an `Architecture` and a `TrainConfig`."""

    architecture: Architecture
    train: TrainConfig
    device: Device
    execution: str
    """`eager` or `compiled`: what `auto` came to."""

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Put the training split on the device: uint8 (N, height, width, channels), int64 (N,)."""

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """Trace, compile and warm up the step for batches of these sizes; leave the state as it was.

        Needs `load_training_data`. Returns the seconds it took.
        """

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """Take one optimiser step per batch of the plan, with one host synchronisation in all.

        Needs `load_training_data`.
        """

    def iter_batches(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each batch of the plan as the network takes it, read back from the device.

        Needs `load_training_data`. Images: (batch, height, width, channels) in the training precision; labels: int64
        (batch,).
        """

    def probe(self, plan: EpochPlan) -> Probe:
        """Take the first step of the plan without its update, in training mode; leave the state as it was.

        Needs `load_training_data`.
        """

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Outputs of the last layer (M, classes), in the training precision, for uint8 (M, height, width, channels)."""

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace the weights: canonical names and layouts."""

    def state(self) -> State:
        """A copy of weights, slots and step."""

    def restore(self, state: State) -> None:
        """Continue from `state`; also from one that the other framework left."""

    def export(self) -> Any:
        """The network as the framework's own object on the CPU, in inference mode.

        It maps images of the training precision in [0, 1], (N, height, width, channels), to (N, classes).
        """


def create(framework: str, architecture: Architecture, train: TrainConfig) -> Classifier:
    """Open a framework's backend. Raises `UserError` where it is missing or cannot do what `train` asks for."""
    require_visible(train.augment, architecture.image_shape)
    module, _, name = frameworks.find(framework).backend.partition(":")
    try:
        backend = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"framework = {framework}: the package {error.name!r} is not installed") from error
    classifier: Classifier = backend(architecture, train)
    return classifier


def initialise(classifier: Classifier, seed: int) -> None:
    """Start anew: weights drawn from `seed`, the optimiser before its first step."""
    architecture, dtype = classifier.architecture, classifier.train.precision
    weights = {name: value.astype(dtype) for name, value in architecture.initial_weights(seed).items()}
    slots = {
        slot: {parameter.name: np.zeros(parameter.shape, dtype) for parameter in architecture.parameters}
        for slot in slots_of(classifier.train)
    }
    classifier.restore(State(weights, slots, 0))


def unit_scale(precision: str) -> float:
    """What uint8 is multiplied by to lie in [0, 1], rounded to the precision.

    Not a division by 255: XLA turns that into this product, which differs in the last bit of every third value.
    """
    return float(np.dtype(precision).type(1) / np.dtype(precision).type(255))


def slots_of(train: TrainConfig) -> tuple[str, ...]:
    """Names of the optimiser's running values."""
    if isinstance(train.optimizer, SgdConfig):
        return ("momentum",) if train.optimizer.momentum else ()
    return ("momentum", "velocity")


def model_folder(output: Path, seed: int) -> Path:
    """Return where the network that was trained with `seed` is kept, below a training's folder."""
    return output / "models" / f"seed_{seed}"


def save(classifier: Classifier, framework: str, directory: Path) -> None:
    """Write `classifier.json` and `weights.safetensors`: no code, no pickle, and loadable by either framework."""
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
    (directory / "weights.safetensors").write_bytes(content)
    write_json(directory / "classifier.json", description | {"weights": fingerprint.of_bytes(content, 32)})


def load(directory: Path, framework: str | None = None) -> Classifier:
    """Open what `save` wrote, in the framework that wrote it or in another. Raises `UserError` naming the file."""
    try:
        description, weights = _read(directory)
        model = ModelConfig.model_validate(description["model"])
        train = TrainConfig.model_validate(description["train"])
        moments = (tuple(description.get(key, ())) for key in ("channel_mean", "channel_std"))
        architecture = Architecture(model, tuple(description["image_shape"]), description["classes"], *moments)
        framework = frameworks.find(framework or description["framework"]).name
    except Exception as error:  # of json, safetensors, pydantic or the file system: all the same to the user
        raise UserError(f"{directory}: not a saved classifier: {error}") from error
    _require_arrays(directory, weights, architecture)
    classifier = create(framework, architecture, train)
    classifier.set_weights(weights)
    return classifier


def load_weights(classifier: Classifier, directory: Path) -> None:
    """Give a classifier in hand the weights that `save` wrote. Raises `UserError` naming the file."""
    try:
        _, weights = _read(directory)
    except Exception as error:  # see `load`
        raise UserError(f"{directory}: not a saved classifier: {error}") from error
    _require_arrays(directory, weights, classifier.architecture)
    classifier.set_weights(weights)


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    description: dict[str, Any] = json.loads((directory / "classifier.json").read_text(encoding="utf-8"))
    content = (directory / "weights.safetensors").read_bytes()
    if description["weights"] != fingerprint.of_bytes(content, 32):
        raise UserError("weights.safetensors is not the file that was saved with classifier.json")
    return description, safetensors.load(content)


def _require_arrays(directory: Path, weights: Mapping[str, np.ndarray], architecture: Architecture) -> None:
    stored = {name: value.shape for name, value in weights.items()}
    wanted = {parameter.name: parameter.shape for parameter in architecture.arrays}
    if stored != wanted:
        raise UserError(f"{directory / 'weights.safetensors'}: holds {stored}, the network has {wanted}")
