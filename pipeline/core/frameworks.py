"""The registry of frameworks: everything that is said of one outside of its own folder below `models/`.

A third framework is one folder with a `Classifier` (see `models.backend`) and one entry here. No framework is imported:
an entry names modules and packages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .errors import UserError


@dataclass(frozen=True)
class SeriesStyle:
    """How one arm looks in every figure, table and page."""

    title: str
    colour: str
    """`#rrggbb`; also the run's colour in MLflow."""
    width: float
    """Of its curves, in points: they often lie on each other, and both stay visible."""


@dataclass(frozen=True)
class Framework:
    """One framework as the rest of the pipeline knows it."""

    name: str
    """The value of `framework`, the folder below `results/` and below `models/`, and the MLflow tag."""
    style: SeriesStyle
    backend: str
    """`<module>:<class>` of its `Classifier`; imported when a classifier is asked for, and no sooner."""
    packages: tuple[str, ...]
    """Distributions whose versions decide the bits; the first is the framework itself."""
    flavour: str | None
    """The module of MLflow that saves its networks; None: models are kept in our own format alone."""
    warm_imports: tuple[str, ...] = ()
    """What a warm worker imports beside the backend, see `sweeps.workers`."""


FRAMEWORKS: Final[dict[str, Framework]] = {}
"""By name, in the order of every table. The first one is the reference that the others are compared with."""


def register(framework: Framework) -> None:
    """Add an entry, or replace the one of that name."""
    FRAMEWORKS[framework.name] = framework


def find(name: str) -> Framework:
    """Return the entry. Raises `UserError` listing what is allowed."""
    if name not in FRAMEWORKS:
        raise UserError(f"framework = {name!r}: allowed: {', '.join(FRAMEWORKS)}")
    return FRAMEWORKS[name]


def names() -> tuple[str, ...]:
    """All of them, the reference first."""
    return tuple(FRAMEWORKS)


def listed(chosen: Sequence[str] | None = None, last: str = "and") -> str:
    """Titles in words: `TensorFlow and PyTorch`."""
    titles = [find(name).style.title for name in (names() if chosen is None else chosen)]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} {last} {titles[-1]}"


# Colours of Okabe & Ito 2008, which colour-blind people tell apart.
register(
    Framework(
        name="tensorflow",
        style=SeriesStyle("TensorFlow", "#D55E00", 3.4),
        backend="pipeline.models.tensorflow:TensorFlowClassifier",
        packages=("tensorflow", "keras"),
        flavour="mlflow.tensorflow",
    )
)
register(
    Framework(
        name="pytorch",
        style=SeriesStyle("PyTorch", "#0072B2", 1.4),
        backend="pipeline.models.pytorch:PyTorchClassifier",
        packages=("torch",),
        flavour="mlflow.pytorch",
        warm_imports=("torch._inductor.compile_fx", "torch.export"),  # PyTorch imports its compiler without compiling
    )
)
