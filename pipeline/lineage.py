"""Show where a result is from, and what came of it: one card for each run.

  python -m pipeline.lineage REFERENCE

REFERENCE: the id or name of a run, the folder of its results, a model's id, <name>/<version> or <name>@<alias> of the
registry, a DVC experiment, a commit, a sweep. A revision of git, or a DVC experiment, whose runs are in another store
is found by the run ids that DVC keeps with its results.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .config.call import parser_of
from .config.compose import compose
from .core.exits import command
from .core.paths import main_root
from .core.signals import end_on_signals


@command
def main(arguments: Sequence[str]) -> None:
    """Print the cards."""
    end_on_signals()
    parser = parser_of("lineage", __doc__)
    parser.add_argument("reference", metavar="REFERENCE", help="a run, or what it left, see above")
    parser.add_argument("--all", action="store_true", help="show every run, not the first ten")
    options = parser.parse_args(arguments)
    from .reproduction import card, revision  # MLflow takes seconds to import, which --help need not wait for
    from .tracking.tracker import Tracker

    client = Tracker(compose().tracking, main_root()).client
    try:
        match = revision.find(client, options.reference)
    except revision.ElsewhereError as error:
        print(*_lines(card.of_experiment(options.reference, error.runs)), sep="\n")
        print(error)
        return
    shown = match.runs if options.all else match.runs[:10]
    print(f"{options.reference}: {match.kind}{f', {match.note}' if match.note else ''}")
    with tempfile.TemporaryDirectory(prefix="lineage-") as scratch:
        for run in shown:
            print("", *_lines(card.rows(client, run, Path(scratch))), sep="\n")
    if len(shown) < len(match.runs):
        print(f"\n{len(match.runs) - len(shown)} more: --all")


def _lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(title) for title, _ in rows)
    return [f"{title:{width}}  {text}" for title, text in rows]


if __name__ == "__main__":
    main(sys.argv[1:])
