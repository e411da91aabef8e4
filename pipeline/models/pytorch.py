"""The PyTorch door: `nn.Module`, autograd, a fused optimiser, one host synchronisation per epoch.

The only module that imports torch.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np

# How long OpenMP's threads spin for each other before they sleep. At its default another program on one of two cores
# takes training from 6,900 to 850 images/s; at this, to 2,100, and on an idle machine nothing changes.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # read when torch is loaded

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import TrainConfig
from ..config.schema import Conv, Dense, Flatten
from ..data.plan import EpochPlan
from ..errors import UserError
from .architecture import Architecture
from .classifier import Device, EpochResult, State

_PREDICT_BATCH = 512
_SLOTS = {"momentum": "exp_avg", "velocity": "exp_avg_sq"}  # canonical name: torch's name


class PyTorchClassifier:
    """See `classifier.Classifier`."""

    slots = tuple(_SLOTS)

    def __init__(self, architecture: Architecture, train: TrainConfig) -> None:
        self.architecture = architecture
        self.train = train
        self.execution = "eager" if train.execution == "auto" else train.execution
        self.device = _configure(train)
        self._place = torch.device("cuda" if self.device.type == "gpu" else "cpu")
        if self.execution == "compiled":
            _require_compiler(self._place)
        self._dtype: torch.dtype = getattr(torch, train.precision)
        self._network = Network(architecture).to(self._place, self._dtype)
        self._outputs_and_loss: Any = self._forward_loss
        if self.execution == "compiled":
            self._outputs_and_loss = torch.compile(self._forward_loss, dynamic=False)
        self._step = 0
        self._images: Tensor | None = None
        self._labels: Tensor | None = None

    def attach(self, images: np.ndarray, labels: np.ndarray) -> None:
        """See `Classifier.attach`."""
        self._images = torch.tensor(images, device=self._place)
        self._labels = torch.tensor(labels, device=self._place)

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """See `Classifier.compile`."""
        began = time.perf_counter()
        before = self.state()
        for size in batch_sizes:
            self.train_epoch(EpochPlan(np.zeros(size, np.int64), size, np.zeros(1)))
        self.restore(before)
        return time.perf_counter() - began

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """See `Classifier.train_epoch`."""
        assert self._images is not None
        assert self._labels is not None
        began = time.perf_counter()
        self._network.train()
        order = torch.from_numpy(np.ascontiguousarray(plan.order)).to(self._place)
        losses = torch.empty(plan.steps, dtype=self._dtype, device=self._place)
        corrects = torch.empty(plan.steps, dtype=torch.int64, device=self._place)
        group = self._optimizer.param_groups[0]
        for i, learning_rate in enumerate(plan.learning_rate.tolist()):
            batch = order[i * plan.batch_size : (i + 1) * plan.batch_size]
            x = self._scaled(self._images.index_select(0, batch))
            y = self._labels.index_select(0, batch)
            self._optimizer.zero_grad(set_to_none=True)
            logits, loss = self._outputs_and_loss(x, y)
            loss.backward()
            group["lr"] = learning_rate
            self._optimizer.step()
            with torch.no_grad():
                losses[i] = loss
                corrects[i] = (logits.argmax(1) == y).sum()
        loss_values = losses.cpu().numpy().astype(np.float64)
        correct_values = corrects.cpu().numpy()
        self._step += plan.steps
        return EpochResult(loss_values, correct_values, time.perf_counter() - began)

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `Classifier.predict`."""
        self._network.eval()
        outputs = [
            self._network(self._scaled(torch.tensor(images[start : start + _PREDICT_BATCH], device=self._place)))
            for start in range(0, len(images), _PREDICT_BATCH)
        ]
        return np.asarray(torch.cat(outputs).cpu().numpy())

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `Classifier.set_weights`."""
        for name, parameter in self._network.canonical_parameters():
            parameter.copy_(_from_canonical(weights[name]))

    def state(self) -> State:
        """See `Classifier.state`."""
        weights, slots = {}, {slot: {} for slot in _SLOTS}  # type: dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]
        for name, parameter in self._network.canonical_parameters():
            weights[name] = _to_canonical(parameter)
            running = self._optimizer.state[parameter]
            for slot, own in _SLOTS.items():
                slots[slot][name] = _to_canonical(running.get(own, torch.zeros_like(parameter)))
        return State(weights, slots, self._step)

    def restore(self, state: State) -> None:
        """See `Classifier.restore`."""
        self.set_weights(state.weights)
        for name, parameter in self._network.canonical_parameters():
            running = self._optimizer.state[parameter]
            running["step"] = torch.tensor(float(state.step), dtype=torch.float32, device=self._place)
            for slot, own in _SLOTS.items():
                value = _from_canonical(state.slots[slot][name]).to(self._place, self._dtype)
                running[own] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        self._step = state.step

    def export(self) -> nn.Module:
        """See `Classifier.export`."""
        return deepcopy(self._network).cpu().eval()

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        # built when it is needed: torch takes seconds to import what its optimisers ask for
        adam = self.train.optimizer
        return torch.optim.Adam(
            self._network.parameters(),
            lr=adam.learning_rate,
            betas=(adam.beta_1, adam.beta_2),
            eps=adam.epsilon,
            fused=True,
        )

    def _scaled(self, images: Tensor) -> Tensor:
        return images.to(self._dtype).div_(255)

    def _forward_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._network(x)
        return logits, functional.cross_entropy(logits, y)


class Network(nn.Module):
    """The declared network: images (N, height, width, channels) in [0, 1] to outputs (N, classes)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._specs = architecture.layers
        self.layers = nn.ModuleDict()
        for spec in architecture.layers:
            if isinstance(spec.layer, Conv):
                self.layers[spec.name] = nn.Conv2d(spec.input_shape[-1], spec.units, spec.layer.kernel_size)
            elif isinstance(spec.layer, Dense):
                self.layers[spec.name] = nn.Linear(spec.input_shape[0], spec.units)

    def forward(self, images: Tensor) -> Tensor:
        """Channels go first inside, as convolutions of PyTorch take them."""
        x = images.permute(0, 3, 1, 2)
        for spec in self._specs:
            if isinstance(spec.layer, Flatten):
                x = x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x.flatten(1)
                continue
            x = self.layers[spec.name](x)
            if spec.layer.activation == "relu":
                x = functional.relu(x)
            elif spec.layer.activation == "softmax":
                x = functional.softmax(x, dim=1)
        return x

    def canonical_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters with their canonical names, in canonical order."""
        roles = {"kernel": "weight", "bias": "bias"}
        for spec in self._specs:
            for parameter in spec.parameters:
                layer, role = parameter.name.split("/")
                yield parameter.name, getattr(self.layers[layer], roles[role])


def _to_canonical(value: Tensor) -> np.ndarray:
    """(out, in, height, width) to (height, width, in, out); (out, in) to (in, out); a copy."""
    array = value.detach().cpu().numpy()
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim]
    return np.array(array.transpose(axes), order="C")


def _from_canonical(value: np.ndarray) -> Tensor:
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
    return torch.from_numpy(np.ascontiguousarray(value.transpose(axes)))


def _configure(train: TrainConfig) -> Device:
    threads = train.threads or os.cpu_count() or 1
    # TensorFlow flushes denormals in its threads. Without it the running averages of dead units halve the speed of Adam
    # after a few epochs. Threads inherit the mode from the one that starts them: before the first operation.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic cuBLAS
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # no operator here reads memory it did not write
        torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():
        return Device("gpu", torch.cuda.get_device_name(0), threads)
    return Device("cpu", "cpu", threads)


def _require_compiler(place: torch.device) -> None:
    compilers = [name for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name]
    if place.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise UserError(
            "train.execution = compiled: torch.compile needs a C++ compiler on the CPU, none of "
            f"{', '.join(compilers)} is on PATH; allowed without one: eager, auto"
        )
