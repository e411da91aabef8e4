"""The section `trace`."""

from typing import Annotated

from pydantic import Field

from .section import Section, Seed


class TraceConfig(Section):
    """Extent of the trace that the parity check compares."""

    steps: Annotated[int, Field(ge=2)]
    """Number of optimiser steps, over two epochs that each end with a partial batch."""
    batch_size: Annotated[int, Field(ge=3)]
    seed: Seed
