"""The section `sweep`."""

from typing import Literal

from .section import Positive, Section

SortKey = Literal["validation_accuracy", "validation_loss", "train_images_per_second"]
"""A metric of the ranking. None is of the test split: a choice by test scores would make them useless as a test."""


class SweepConfig(Section):
    """How a sweep runs its jobs, and ranks them."""

    rerun: bool
    """Whether to train finished jobs again; False: skip them."""
    parallel: Literal["auto"] | Positive
    """How many jobs run at a time; `auto`: one for each core or GPU, as far as memory holds, see `sweeps.capacity`.

    Another launcher than Hydra's own basic one decides by itself (`hydra.launcher.n_jobs`, ...).
    """
    sort: SortKey
    """The metric that the ranking goes by, best first."""
    top: Positive
    """Rows of the ranking on the terminal and in MLflow's description; `ranking.md` has all."""
