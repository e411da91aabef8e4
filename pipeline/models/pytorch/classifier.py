"""Training in PyTorch: autograd, a fused optimiser, one host synchronisation per epoch."""

import time
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config.schema.train import AdamWConfig, SgdConfig, TrainConfig
from ...data.plan import EpochPlan
from ..architecture import Architecture
from ..backend import EpochResult, Probe, State, refusing_nondeterminism, slots_of, unit_scale
from ..share import Part, Share, rows_here
from .augmentation import augmented
from .network import Network
from .peers import Peers
from .recorded import RecordedStep
from .start import configure, gpu, require_compiler

_ON_THE_CPU: Final = {"most": 128, "layer_bytes": 1 << 24}
"""What is predicted at once on the CPU, see `Architecture.predict_batch`.

PyTorch takes a layer's output from the C library, which gets a large one from the system anew each time: with 512
images of 28x28 and 32 filters (44 MB) a prediction takes 2.5 times as long as with 128.
"""
_PIECE_BYTES: Final = 1 << 26


class PyTorchClassifier:
    """The PyTorch implementation of `backend.Classifier`."""

    def __init__(self, architecture: Architecture, train: TrainConfig, share: Share | None = None) -> None:
        self.architecture = architecture
        self.train = train
        self.device = configure(train)
        customary = "graph" if self.device.type == "gpu" and share is None else "eager"
        self.execution = customary if train.execution == "auto" else train.execution
        small = _ON_THE_CPU if self.device.type == "cpu" else {}
        self.predict_batch = architecture.predict_batch(train.precision, **small)
        self._place = torch.device("cuda" if self.device.type == "gpu" else "cpu")
        if self.execution == "compiled":
            require_compiler(self._place)
        self._dtype: torch.dtype = getattr(torch, train.precision)
        self._share = share
        self._peers = Peers(share, self._place) if share else None
        self._network = Network(architecture, self._peers).to(self._place, self._dtype)
        self._outputs_and_loss: Any = self._forward_loss
        if self.execution == "compiled":
            self._outputs_and_loss = torch.compile(self._forward_loss, dynamic=False)
        if self._peers:
            self._outputs_and_loss = self._peers.adding_gradients(self._network, self._outputs_and_loss)
        self._records = self.device.type == "gpu" and self.execution != "eager"
        self._recorded: dict[int, RecordedStep] = {}
        self._step = 0
        self._images: Tensor | None = None
        self._labels: Tensor | None = None

    gpu = staticmethod(gpu)

    def peak_gpu_bytes(self) -> int | None:
        """See `Classifier.peak_gpu_bytes`."""
        return torch.cuda.max_memory_allocated() if self.device.type == "gpu" else None

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """See `Classifier.load_training_data`."""
        self._images = self._uploaded(images)
        self._labels = torch.tensor(labels, device=self._place)

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """See `Classifier.compile`."""
        began = time.perf_counter()
        before = self.state()
        for size in batch_sizes:
            with refusing_nondeterminism("PyTorch", RuntimeError):
                self.train_epoch(EpochPlan.warm_up(self.train, size))
        self.restore(before)
        return time.perf_counter() - began

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """See `Classifier.train_epoch`."""
        began = time.perf_counter()
        self._network.train()
        order, draws, keys = self._placed(plan)
        losses = torch.empty(plan.steps, dtype=self._dtype, device=self._place)
        corrects = torch.empty(plan.steps, dtype=torch.int64, device=self._place)
        group = self._optimizer.param_groups[0]
        for i, (learning_rate, size) in enumerate(zip(plan.learning_rate.tolist(), plan.batch_sizes, strict=True)):
            batch, part = self._rows(i * plan.batch_size, int(size))
            loss, correct = self._gradients(order[batch], draws[batch], keys[i], part)
            group["lr"] = learning_rate
            self._optimizer.step()
            losses[i], corrects[i] = loss, correct
        loss_values = losses.cpu().numpy().astype(np.float64)
        correct_values = corrects.cpu().numpy()
        self._step += plan.steps
        return EpochResult(loss_values, correct_values, time.perf_counter() - began)

    def iter_batches(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Classifier.iter_batches`."""
        order, draws, _ = self._placed(plan)
        for rows, drawn in zip(order.split(plan.batch_size), draws.split(plan.batch_size), strict=True):
            images, labels = self._gathered(rows)
            yield self._prepared(images, drawn).cpu().numpy(), labels.cpu().numpy()

    def probe(self, plan: EpochPlan) -> Probe:
        """See `Classifier.probe`."""
        before = self.state()
        self._network.train()
        first = plan.segment(0, 1)
        order, draws, keys = self._placed(first)
        batch, part = self._rows(0, len(first.order))
        outputs, loss = self._backward(*self._gathered(order[batch]), draws[batch], keys[0], part)
        gradients = {name: _to_canonical(parameter.grad) for name, parameter in self._parameters()}
        self.restore(before)
        return Probe(outputs.cpu().numpy(), float(loss), gradients)

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `Classifier.predict`."""
        self._network.eval()
        size = self.predict_batch
        outputs = [
            self._network(self._scaled(torch.tensor(images[start : start + size], device=self._place)))
            for start in range(0, len(images), size)
        ]
        return np.asarray(torch.cat(outputs).cpu().numpy())

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `Classifier.set_weights`."""
        for name, array in self._network.canonical_arrays():
            array.copy_(_from_canonical(weights[name]))

    def state(self) -> State:
        """See `Classifier.state`."""
        weights = {name: _to_canonical(array) for name, array in self._network.canonical_arrays()}
        slots = {
            slot: {
                name: _to_canonical(self._optimizer.state[parameter].get(torch_name, torch.zeros_like(parameter)))
                for name, parameter in self._parameters()
            }
            for slot, torch_name in self._slots.items()
        }
        return State(weights, slots, self._step)

    def restore(self, state: State) -> None:
        """See `Classifier.restore`."""
        self.set_weights(state.weights)
        for name, parameter in self._parameters():
            running = self._optimizer.state[parameter]
            if not isinstance(self.train.optimizer, SgdConfig):
                running["step"] = torch.tensor(float(state.step), dtype=torch.float32, device=self._place)
            for slot, torch_name in self._slots.items():
                value = _from_canonical(state.slots[slot][name]).to(self._place, self._dtype)
                running[torch_name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        self._step = state.step

    def export(self) -> nn.Module:
        """See `Classifier.export`."""
        return deepcopy(self._network).cpu().eval()

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        # created on first use: the imports of torch's optimisers take seconds
        config, parameters = self.train.optimizer, self._network.parameters()
        common: dict[str, Any] = {"lr": config.learning_rate, "fused": True}
        if isinstance(config, SgdConfig):
            return torch.optim.SGD(parameters, momentum=config.momentum, nesterov=config.nesterov, **common)
        common |= {"betas": (config.beta_1, config.beta_2), "eps": config.epsilon}
        if isinstance(config, AdamWConfig):
            return torch.optim.AdamW(parameters, weight_decay=config.weight_decay, **common)
        return torch.optim.Adam(parameters, **common)

    @cached_property
    def _slots(self) -> dict[str, str]:
        """The names of torch by canonical name of the slot."""
        if isinstance(self.train.optimizer, SgdConfig):
            return dict.fromkeys(slots_of(self.train), "momentum_buffer")
        return {"momentum": "exp_avg", "velocity": "exp_avg_sq"}

    @cached_property
    def _trained(self) -> list[nn.Parameter]:
        return list(self._network.parameters())

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, array in self._network.canonical_arrays():
            if isinstance(array, nn.Parameter):
                yield name, array

    def _placed(self, plan: EpochPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Return order, augmentation and dropout keys of a plan on the device."""
        order, draws, keys = (
            torch.tensor(values, device=self._place) for values in (plan.order, plan.augmentation, plan.dropout_keys)
        )
        return order, draws, keys

    def _uploaded(self, images: np.ndarray) -> Tensor:
        """Return images on the device. To a GPU they go in pieces from pinned memory, each while the next is copied."""
        if self._place.type == "cpu":
            return torch.tensor(images)
        placed = torch.empty(images.shape, dtype=torch.uint8, device=self._place)
        rows = max(1, _PIECE_BYTES // max(1, images[:1].nbytes))
        for start in range(0, len(images), rows):
            piece = torch.from_numpy(images[start : start + rows]).pin_memory()
            placed[start : start + rows].copy_(piece, non_blocking=True)
        return placed

    def _gathered(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        assert self._images is not None
        assert self._labels is not None
        return self._images.index_select(0, rows), self._labels.index_select(0, rows)

    def _prepared(self, images: Tensor, draws: Tensor) -> Tensor:
        if self.train.augment.active:
            images = augmented(images, self.train.augment, draws)
        return self._scaled(images)

    def _rows(self, start: int, size: int) -> tuple[slice, Part | None]:
        """Return the rows of a plan that are computed here, of the batch of `size` examples that begins at `start`."""
        rows, part = rows_here(self._share, size)
        return slice(start + rows.start, start + rows.stop), part

    def _gradients(self, rows: Tensor, draws: Tensor, key: Tensor, part: Part | None) -> tuple[Tensor, Tensor]:
        """Leave the gradients of a batch at the parameters; return its loss and the number of correct answers."""
        if not self._records:
            return self._take_gradients(*self._gathered(rows), draws, key, part)
        if len(rows) not in self._recorded:
            before = self.state()
            example = (*self._gathered(rows), draws, key)
            self._recorded[len(rows)] = RecordedStep(self._take_gradients, self._trained, example)
            self.restore(before)
        assert self._images is not None
        assert self._labels is not None
        return self._recorded[len(rows)].replay(self._images, self._labels, rows, draws, key)

    def _take_gradients(
        self, images: Tensor, labels: Tensor, draws: Tensor, key: Tensor, part: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs, loss = self._backward(images, labels, draws, key, part)
        if self.train.clip_norm is not None:
            _clip(self._trained, self.train.clip_norm)
        return loss, (outputs.argmax(1) == labels).sum()

    def _backward(
        self, images: Tensor, labels: Tensor, draws: Tensor, key: Tensor, part: Part | None
    ) -> tuple[Tensor, Tensor]:
        """Leave the gradients of the whole batch, before clipping, at the parameters; return outputs and loss."""
        for parameter in self._trained:
            parameter.grad = None
        outputs, loss = self._outputs_and_loss(self._prepared(images, draws), labels, key, part)
        loss.backward()
        return outputs.detach(), loss.detach()

    def _scaled(self, images: Tensor) -> Tensor:
        return images.to(self._dtype).mul_(unit_scale(self.train.precision))

    def _forward_loss(self, x: Tensor, y: Tensor, dropout_key: Tensor, part: Part | None) -> tuple[Tensor, Tensor]:
        outputs = self._network(x, dropout_key, part)
        smoothing = self.train.label_smoothing
        if part is None:
            return outputs, functional.cross_entropy(outputs, y, label_smoothing=smoothing)
        return outputs, functional.cross_entropy(outputs, y, label_smoothing=smoothing, reduction="sum") / part.total


def _clip(parameters: list[nn.Parameter], norm: float) -> None:
    """Scale the gradients by min(1, norm / their global 2-norm) (Pascanu et al. 2013, Algorithm 1).

    torch.nn.utils.clip_grad_norm_ differs: it adds 1e-6 to the norm.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    global_norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    scale = (norm / global_norm).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(scale)


def _to_canonical(value: Tensor) -> np.ndarray:
    """Return a copy as (height, width, in, out) of (out, in, height, width), or as (in, out) of (out, in)."""
    array = value.detach().cpu().numpy()
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim]
    return np.array(array.transpose(axes), order="C")


def _from_canonical(value: np.ndarray) -> Tensor:
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
    return torch.from_numpy(np.ascontiguousarray(value.transpose(axes)))
