"""What the ranks of one training exchange, by torch.distributed: Gloo on the CPU, NCCL on GPUs."""

import datetime
from collections.abc import Iterable
from typing import Any, Final

import torch
import torch.distributed
from torch import Tensor, nn

from ...core.quiet import without_standard_output
from ..share import Part, Share

_JOIN: Final = datetime.timedelta(minutes=10)
_PATIENCE: Final = datetime.timedelta(hours=1)
"""How long a rank waits for the others: rank 0 also evaluates and saves. One that is gone is noticed at once."""


class Peers:
    """The collectives of one rank. A process has one group of ranks for its whole life."""

    def __init__(self, share: Share, place: torch.device) -> None:
        if not torch.distributed.is_initialized():
            engine = "nccl" if place.type == "cuda" else "gloo"
            host, _, port = share.addresses[0].rpartition(":")
            # with an address alone, PyTorch would look for the store of torchrun there
            store = torch.distributed.TCPStore(host, int(port), share.world, share.rank == 0, _JOIN)
            with without_standard_output():
                torch.distributed.init_process_group(
                    engine, timeout=_PATIENCE, world_size=share.world, rank=share.rank, store=store
                )

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks; all in one exchange."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum over the ranks; its gradient is the sum of all ranks' gradients."""
        return _Sum.apply(value)

    def batch_norm(self, x: Tensor, norm: Any, part: Part) -> Tensor:
        """Apply batch norm in training with the statistics of the whole batch, and update its running ones.

        nn.SyncBatchNorm computes the same, but on GPUs alone. `norm`: nn.BatchNorm1d or nn.BatchNorm2d.
        """
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        count = part.total * (x.numel() // (len(x) * x.shape[1]))
        mean = self.summed(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = self.summed((centred * centred).sum(axes)) / count
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        scale = norm.weight / (variance + norm.eps).sqrt()
        return centred * scale.view(shape) + norm.bias.view(shape)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total
