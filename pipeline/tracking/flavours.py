"""Networks to folders as MLflow stores models: without pickle, with a signature, with explicit requirements."""

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

_INPUT_NAMES: Final = {"mlflow.tensorflow": "images"}
"""Of flavours whose signature names its inputs."""


def save(flavour: str, network: Any, folder: Path, *, example: np.ndarray, classes: int, files: Sequence[Path]) -> None:
    """Write `network` into `folder`, which is made.

    `flavour`: a module of MLflow. `example`: a batch of at least two images, in the dtype and shape that the network
    takes. `files`: kept beside it.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    module = importlib.import_module(flavour)
    images = TensorSpec(example.dtype, (-1, *example.shape[1:]), _INPUT_NAMES.get(flavour))
    signature = ModelSignature(Schema([images]), Schema([TensorSpec(example.dtype, (-1, classes))]))
    # torch.export traces the example, and would fix its batch size if that were one
    options = {"serialization_format": "pt2", "input_example": example} if flavour == "mlflow.pytorch" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.save_model(
            network,
            str(folder),
            signature=signature,
            pip_requirements=module.get_default_pip_requirements(),  # given: inferring them takes 10 s and more
            extra_files=[str(path) for path in files],
            **options,
        )
