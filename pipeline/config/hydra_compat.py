"""All code that depends on undocumented behaviour of Hydra (seen in 1.3.8). Read it first when the version changes.

tests/test_compat.py has a test for each function, which says what to do when it breaks. Importing Hydra takes a while,
so the functions import it, not this module.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def aside() -> Iterator[None]:
    """Set the Hydra that runs this process, if any, aside for as long as the context lasts: another may compose."""
    from hydra.core.global_hydra import GlobalHydra

    instance = GlobalHydra.instance()
    running, instance.hydra = instance.hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a sweep: `key=1,2` and ranges are expanded by Hydra's own sweeper.

    Raises `HydraException` if an override is malformed.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
