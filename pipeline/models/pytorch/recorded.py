"""A training step up to its gradients as a CUDA graph: recorded once for a batch size, then replayed.

A small network on a fast GPU waits for the CPU, which starts its some hundred kernels one by one; a replay starts them
all at once. The kernels, and so the bits, are those of the step that was recorded. See docs.pytorch.org, "CUDA
Graphs".
"""

from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import Tensor, nn

_WARM_UPS: Final = 3
"""Steps before the recording, in which cuDNN and cuBLAS choose and allocate; what the documentation names."""

Step = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From images uint8 (N, height, width, channels), labels int64 (N,), augmentation int64 (N, 5) and dropout key int64 ()
to the loss () and the number of correct answers int64 (); leaves the gradients at the parameters."""


class RecordedStep:
    """The step for batches of one size. Changes what a step changes, running statistics among it: restore the state."""

    def __init__(self, step: Step, parameters: Iterable[nn.Parameter], example: tuple[Tensor, Tensor, Tensor, Tensor]):
        self._parameters = list(parameters)
        self._inputs = tuple(value.clone() for value in example)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._forget_gradients()
                step(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._forget_gradients()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = step(*self._inputs)
        self._gradients = [parameter.grad for parameter in self._parameters]

    def replay(self, images: Tensor, labels: Tensor, rows: Tensor, draws: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the step returns for these rows of all images and labels; the next replay overwrites it."""
        if self._parameters[0].grad is not self._gradients[0]:  # of another step since the last replay
            for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
                parameter.grad = gradient
        torch.index_select(images, 0, rows, out=self._inputs[0])
        torch.index_select(labels, 0, rows, out=self._inputs[1])
        self._inputs[2].copy_(draws)
        self._inputs[3].copy_(key)
        self._graph.replay()
        return self._results

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
