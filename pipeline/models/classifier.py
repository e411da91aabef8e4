"""The seam between the frameworks: what both doors offer, in NumPy alone, and the registry that opens one of them."""

import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from safetensors import numpy as safetensors

from ..config import ModelConfig, TrainConfig
from ..config.schema import SgdConfig
from ..data.plan import EpochPlan, require_visible
from ..errors import UserError
from .architecture import Architecture

# A framework is imported by its own module only, and only when it is asked for.
DOORS: Final = {
    "tensorflow": ("pipeline.models.tensorflow", "TensorFlowClassifier"),
    "pytorch": ("pipeline.models.pytorch", "PyTorchClassifier"),
}


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

    def attach(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Put the training split on the device: uint8 (N, height, width, channels), int64 (N,)."""

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """Trace, compile, warm up the step for batches of these sizes; needs `attach`, leaves the state as it was.

        Returns the seconds it took.
        """

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """Take one optimiser step per batch of the plan; needs `attach`. One host synchronisation in all."""

    def seen(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each batch of the plan as the network takes it, read back from the device; needs `attach`.

        Images (batch, height, width, channels) in the training precision, labels int64 (batch,).
        """

    def probe(self, plan: EpochPlan) -> Probe:
        """The first step of the plan without its update, in training mode; leaves the state; needs `attach`."""

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
    """Open one door. Raises `UserError` where its framework is missing or cannot do what `train` asks for."""
    require_visible(train.augment, architecture.image_shape)
    module, name = DOORS[framework]
    try:
        door = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"framework = {framework}: the package {error.name!r} is not installed") from error
    classifier: Classifier = door(architecture, train)
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
    description["weights"] = _digest(content)
    (directory / "classifier.json").write_text(json.dumps(description, indent=2) + "\n")


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def load(directory: Path, framework: str | None = None) -> Classifier:
    """Open what `save` wrote, in the framework that wrote it or in another. Raises `UserError` naming the file."""
    try:
        description = json.loads((directory / "classifier.json").read_text())
        content = (directory / "weights.safetensors").read_bytes()
        if description["weights"] != _digest(content):
            raise UserError("weights.safetensors is not the file that was saved with classifier.json")
        weights = safetensors.load(content)
        model = ModelConfig.model_validate(description["model"])
        train = TrainConfig.model_validate(description["train"])
        moments = (tuple(description.get(key, ())) for key in ("channel_mean", "channel_std"))
        architecture = Architecture(model, tuple(description["image_shape"]), description["classes"], *moments)
        framework = framework or description["framework"]
        if framework not in DOORS:
            raise UserError(f"framework = {framework!r}; allowed: {', '.join(DOORS)}")
    except Exception as error:  # of json, safetensors, pydantic or the file system: all the same to the user
        raise UserError(f"{directory}: not a saved classifier: {error}") from error
    found = {name: value.shape for name, value in weights.items()}
    wanted = {parameter.name: parameter.shape for parameter in architecture.arrays}
    if found != wanted:
        raise UserError(f"{directory / 'weights.safetensors'}: holds {found}, the network has {wanted}")
    classifier = create(framework, architecture, train)
    classifier.set_weights(weights)
    return classifier
