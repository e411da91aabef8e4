"""Save networks in MLflow's model format: without pickle, with a signature, with explicit requirements."""

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

_INPUT_NAMES: Final = {"mlflow.tensorflow": "images"}
"""By flavour, the name of the input in its signatures; the others have unnamed inputs."""


def model_name(framework: str, network: str, seed: int) -> str:
    """Return the name of a seed's model. MLflow takes no dot in it, which the name of a network may have."""
    return f"{framework}-{network}-s{seed}".replace(".", "-")


def save(flavour: str, network: Any, folder: Path, *, example: np.ndarray, classes: int, files: Sequence[Path]) -> None:
    """Write `network` into the new folder `folder`.

    `flavour`: a module of MLflow. `example`: a batch of at least two images, in the dtype and shape that the network
    takes; its first axis is variable in the signature. `classes`: size of the output's last axis. `files`: copied into
    the folder.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    module = importlib.import_module(flavour)
    images = TensorSpec(example.dtype, (-1, *example.shape[1:]), _INPUT_NAMES.get(flavour))
    signature = ModelSignature(Schema([images]), Schema([TensorSpec(example.dtype, (-1, classes))]))
    # torch.export traces the example, and would fix a batch size of 1
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
