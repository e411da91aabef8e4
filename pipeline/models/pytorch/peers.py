"""What the ranks of one training exchange, by torch.distributed: Gloo on the CPU, NCCL on GPUs.

Gradients are added by DistributedDataParallel, bucket by bucket during the backward pass (Li et al. 2020, "PyTorch
Distributed").
"""

import datetime
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...core.quiet import without_standard_output
from ..share import Part, Share

_JOIN: Final = datetime.timedelta(minutes=10)
_PATIENCE: Final = datetime.timedelta(hours=1)
"""How long a rank waits for the others: rank 0 also evaluates and saves. One that is gone is noticed at once."""


class Peers:
    """The collectives of one rank. A process has one group of ranks for its whole life."""

    def __init__(self, share: Share, place: torch.device) -> None:
        if not torch.distributed.is_initialized():
            host, _, port = share.addresses[0].rpartition(":")
            # with an address alone, PyTorch would look for the store of torchrun there
            store = torch.distributed.TCPStore(host, int(port), share.world, share.rank == 0, _JOIN)
            engine = "nccl" if place.type == "cuda" and _each_has_its_own(share, store) else "gloo"
            with without_standard_output():
                torch.distributed.init_process_group(
                    engine, timeout=_PATIENCE, world_size=share.world, rank=share.rank, store=store
                )

    def adding_gradients(self, network: nn.Module, function: Callable[..., Any]) -> Any:
        """Return `function`, with gradients of the network's parameters that are summed over the ranks.

        `function` computes with `network`; its gradients are taken by `backward`.
        """
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of an axis of one value, which has no stride
        # the running statistics are the same in all ranks already
        holder = _Holder(network, function)
        shared = DistributedDataParallel(holder, broadcast_buffers=False, gradient_as_bucket_view=True)
        shared.register_comm_hook(None, _sum_of_bucket)
        return shared

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum over the ranks; its gradient is the sum of all ranks' gradients."""
        return _Sum.apply(value)

    @torch.compiler.disable  # it would be compiled for each shape by itself, as no graph holds the exchange
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


class _Holder(nn.Module):
    def __init__(self, network: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self._function = network, function

    def forward(self, *inputs: Any) -> Any:
        return self._function(*inputs)


def _sum_of_bucket(_: None, bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """Add, where DistributedDataParallel itself would take the mean."""
    work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _each_has_its_own(share: Share, store: torch.distributed.Store) -> bool:
    """Return whether no two ranks have the same GPU: NCCL refuses that, and Gloo does not."""
    store.set(f"gpu {share.rank}", str(torch.cuda.get_device_properties(0).uuid))
    return len({store.get(f"gpu {rank}") for rank in range(share.world)}) == share.world


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
