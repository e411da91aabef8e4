"""The section `sweep`."""

from .section import Section


class SweepConfig(Section):
    """How a sweep treats jobs that are done already."""

    rerun: bool
    """Whether to train them again; False: skip them."""
