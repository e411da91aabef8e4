"""Report in seconds what would make a later run fail, without changing anything.

  python -m pipeline.doctor [-m] [key=value ...]    the overrides of the run, sweep or search

Checks Python and packages, machine, GPU, disk, the MLflow store, waiting journals, checkpoints, configuration, data,
DVC and git. Ends with code 1 if a run would fail.
"""

import sys
from collections.abc import Sequence

from .config.call import OVERRIDES, parser_of
from .core.errors import ResultError
from .core.exits import command
from .core.paths import main_root
from .diagnosis.checks import examine


@command
def main(arguments: Sequence[str]) -> None:
    """Print each finding. Raises `ResultError` if one of them would make a run fail."""
    parser = parser_of("doctor", __doc__)
    parser.epilog = OVERRIDES
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    parser.add_argument("-m", "--multirun", action="store_true", help="taken, so that a command line can be pasted")
    overrides = parser.parse_intermixed_args(arguments).overrides
    from rich.markup import escape

    from .core.progress import console

    failed = 0
    colours = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
    for finding in examine(overrides, main_root()):
        failed += finding.mark == "FAIL"
        mark = f"[{colours[finding.mark]}]{finding.mark:5}[/]"
        console.print(f"{mark} {finding.check:14} {escape(finding.message)}", highlight=False, soft_wrap=True)
    if failed:
        raise ResultError(f"{failed} of these would make a run fail")


if __name__ == "__main__":
    main(sys.argv[1:])
