"""`python -m pipeline.sync`: bring what waits in journals to MLflow. Doing so twice changes nothing.

Runs whose process was killed end KILLED there.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from .entry import end_on_sigterm, main_root, user_errors
from .errors import UnsentError
from .progress import steps


@user_errors
def main(arguments: Sequence[str]) -> None:
    """Ends with 0 when nothing waits any longer, 1 where something still does, 2 where `--to` is no store."""
    end_on_sigterm()
    parser = ArgumentParser(prog="python -m pipeline.sync", description=__doc__)
    parser.add_argument("--to", metavar="URI", help="a store other than the one that the runs were meant for")
    to = parser.parse_args(arguments).to
    from .tracking import outbox

    root = main_root()
    found = outbox.find(root)
    with steps("sync", len(found), "journals") as progress:
        failures = outbox.send(root, found, to, lambda _: progress(1))
    left = outbox.find(root)
    if left and not failures:
        failures = [f"MLflow refused some of {one.name}: see {one.folder}, then delete it" for one in left]
    more = f"; {busy} more are being written, and sent, by processes at work" if (busy := outbox.at_work(root)) else ""
    print(f"{len(found) - len(left)} journals sent, {len(left)} wait{more}")
    if failures:
        raise UnsentError("\n".join(failures))


if __name__ == "__main__":
    main(sys.argv[1:])
