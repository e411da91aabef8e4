"""The registry of frameworks: everything the pipeline states about a framework outside its folder below `models/`.

A further framework needs one folder with a `Classifier` (see `models.backend`) and one entry here. This module imports
no framework: an entry names modules and packages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .errors import UserError


@dataclass(frozen=True)
class SeriesStyle:
    """The title, colour and line width of an arm in every figure, table and page."""

    title: str
    colour: str
    """`#rrggbb`; also the run's colour in MLflow."""
    width: float
    """Line width of its curves in points. Widths differ so that curves that coincide stay visible."""


@dataclass(frozen=True)
class Framework:
    """One entry of the registry."""

    name: str
    """The value of `framework`, the folder below `results/` and below `models/`, and the MLflow tag."""
    style: SeriesStyle
    backend: str
    """`<module>:<class>` of its `Classifier`; imported when the first classifier is created."""
    packages: tuple[str, ...]
    """Distributions whose versions decide the bits; the first is the framework itself."""
    flavour: str | None
    """The MLflow module that logs its models; None: models are saved in this project's format only."""
    executions: tuple[str, ...] = ("eager", "compiled")
    """The values of `train.execution` that it has on every device, beside `auto`."""
    executions_on_gpu: tuple[str, ...] = ()
    """Those that it has on a GPU only."""
    compiler: str = ""
    """What compiles its steps where the execution is `compiled`."""
    ours: tuple[str, ...] = ()
    """Optimisers and types of layers that its backend computes by code of this project, not by the framework's own."""
    ours_compiled: tuple[str, ...] = ()
    """Those where its steps are compiled or on a GPU, in addition."""
    variables: tuple[str, ...] = ()
    """Patterns of the variables of the environment that may move its bits, see `machine.steering_variables`."""
    ranks: bool = False
    """Whether several processes can train one network: `train.world` above 1."""
    warm_imports: tuple[str, ...] = ()
    """Modules that a warm worker imports in addition to the backend, see `sweeps.workers`."""


FRAMEWORKS: Final[dict[str, Framework]] = {}
"""Entries by name, in the order of every table. The first is the reference that the others are compared with."""


def register(framework: Framework) -> None:
    """Add an entry, or replace the entry of the same name."""
    FRAMEWORKS[framework.name] = framework


def find(name: str) -> Framework:
    """Return the entry of this name. Raises `UserError` that lists the allowed names."""
    if name not in FRAMEWORKS:
        raise UserError(f"framework = {name!r}: allowed: {', '.join(FRAMEWORKS)}")
    return FRAMEWORKS[name]


def require_execution(name: str, execution: str, device: str) -> None:
    """Raise `UserError` for a `train.execution` that a framework does not have on a device, `cpu` or `gpu`."""
    framework = find(name)
    on_gpu = framework.executions_on_gpu
    allowed = ["auto", *framework.executions, *(on_gpu if device == "gpu" else ())]
    if execution not in allowed:
        where = " on the CPU" if execution in on_gpu else ""
        title = framework.style.title
        raise UserError(f"train.execution = {execution!r}: {title} has none{where}; allowed: {', '.join(allowed)}")


def names() -> tuple[str, ...]:
    """Return the names of all frameworks, the reference first."""
    return tuple(FRAMEWORKS)


def listed(chosen: Sequence[str] | None = None) -> str:
    """Return the titles of the `chosen` frameworks (default: all) as `TensorFlow and PyTorch`."""
    titles = [find(name).style.title for name in (names() if chosen is None else chosen)]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


# Colours of Okabe & Ito 2008: distinct to colour-blind readers.
register(
    Framework(
        name="tensorflow",
        style=SeriesStyle("TensorFlow", "#D55E00", 3.4),
        backend="pipeline.models.tensorflow:TensorFlowClassifier",
        packages=("tensorflow", "keras"),
        flavour="mlflow.tensorflow",
        executions=("eager", "graph", "compiled"),
        compiler="XLA",
        ours=("adam", "adamw", "sgd", "batch_norm", "dropout"),
        ours_compiled=("max_pool",),
        variables=("TF_*", "TF2_*", "XLA_*"),
        ranks=True,
    )
)
register(
    Framework(
        name="pytorch",
        style=SeriesStyle("PyTorch", "#0072B2", 1.4),
        backend="pipeline.models.pytorch:PyTorchClassifier",
        packages=("torch",),
        flavour="mlflow.pytorch",
        executions_on_gpu=("graph",),
        compiler="TorchInductor",
        ours=("dropout",),
        variables=("TORCH*", "PYTORCH_*", "ATEN_*"),
        ranks=True,
        warm_imports=("torch._inductor.compile_fx", "torch.export"),  # PyTorch imports these even when it runs eagerly
    )
)
