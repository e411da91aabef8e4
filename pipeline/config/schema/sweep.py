"""The section `sweep`."""

from .section import Section


class SweepConfig(Section):
    """What a sweep does with jobs that were done before."""

    rerun: bool
