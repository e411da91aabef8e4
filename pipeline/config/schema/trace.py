"""The section `trace`."""

from typing import Annotated

from pydantic import Field

from .section import Section, Seed


class TraceConfig(Section):
    """How much evidence is gathered that both frameworks compute the same."""

    steps: Annotated[int, Field(ge=2)]
    """Optimiser steps, over two epochs that each end with a partial batch."""
    batch_size: Annotated[int, Field(ge=3)]
    seed: Seed
