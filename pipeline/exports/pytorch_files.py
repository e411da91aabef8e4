"""PyTorch's format of production: a `.pt2` file of `torch.export`, from uint8 images to logits."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..models.backend import Classifier, unit_scale
from ..models.pytorch import start

torch: Any = start.torch  # type: ignore[attr-defined] # only its own folder imports it


class _Served(torch.nn.Module):
    def __init__(self, network: Any, precision: str) -> None:
        super().__init__()
        self.network, self._dtype, self._scale = network, getattr(torch, precision), unit_scale(precision)

    def forward(self, images: Any) -> Any:
        return self.network(images.to(self._dtype) * self._scale)


def write_pt2(classifier: Classifier, path: Path) -> None:
    """Write a `.pt2` file whose first axis may have any length: traced with one image, it would take one only."""
    served = _Served(classifier.export(), classifier.train.precision).eval()
    example = torch.zeros((2, *classifier.architecture.image_shape), dtype=torch.uint8)
    program = torch.export.export(served, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, os.fspath(path))


def open_pt2(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from uint8 images to logits."""
    torch.set_num_threads(threads)
    module = torch.export.load(os.fspath(path)).module()

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images)).numpy())

    return predict
