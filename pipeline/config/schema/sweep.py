"""The section `sweep`."""

from typing import Annotated, Literal

from pydantic import Field

from .section import Section


class SweepConfig(Section):
    """How a sweep runs its jobs."""

    rerun: bool
    """Whether to train finished jobs again; False: skip them."""
    parallel: Literal["auto"] | Annotated[int, Field(ge=1)]
    """How many jobs run at a time; `auto`: one for each core or GPU, as far as memory holds, see `sweeps.capacity`.

    Another launcher than Hydra's own basic one decides by itself (`hydra.launcher.n_jobs`, ...).
    """
