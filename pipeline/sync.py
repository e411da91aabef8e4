"""Send the waiting journals to MLflow; a second time changes nothing.

  python -m pipeline.sync [--to URI]

Runs whose process was killed get the status KILLED. Ends with code 1 if journals still wait.
"""

import sys
from collections.abc import Sequence

from .config.call import parser_of
from .core.errors import UnsentError
from .core.exits import command
from .core.paths import main_root
from .core.progress import steps
from .core.signals import end_on_signals


@command
def main(arguments: Sequence[str]) -> None:
    """Send the journals. Raises `UnsentError` if some still wait, `UserError` if `--to` names no MLflow store."""
    end_on_signals()
    parser = parser_of("sync", __doc__)
    parser.add_argument("--to", metavar="URI", help="send to this store, and not to the one that each run names")
    to = parser.parse_args(arguments).to
    from .tracking import outbox  # MLflow takes seconds to import, which --help need not wait for

    root = main_root()
    waiting = outbox.find(root)
    with steps("sync", len(waiting), "journals") as progress:
        failures = outbox.send(root, waiting, to, lambda _: progress(1))
    left = outbox.find(root)
    if left and not failures:
        failures = [
            f"events of {one.name} could not be sent; see refused.jsonl in {one.folder}, then delete it" for one in left
        ]
    more = f"; {busy} more are being written and sent by running processes" if (busy := outbox.at_work(root)) else ""
    print(f"{len(waiting) - len(left)} journals sent, {len(left)} wait{more}")
    if failures:
        raise UnsentError("\n".join(failures))


if __name__ == "__main__":
    main(sys.argv[1:])
