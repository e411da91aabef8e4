"""Train a run of MLflow again, from what it logged, and compare the two bit for bit.

  python -m pipeline.rerun REFERENCE [key=value ...]

REFERENCE: the id or name of a run, the folder of its results, a model's id, <name>/<version> or <name>@<alias> of the
registry, a DVC experiment, a commit, a sweep. A run above others stands for all seeds below it.

The code is restored in a folder of its own: the run's commit with its own changes on top. Threads and the variables
that move bits are set as they were, the data are found by their fingerprint. A key=value changes the configuration.

Ends with 0 and "same bits" if the loss of every step, weights and test logits are the same, bit for bit; with 1 and
the first thing that differs if not. Both runs get the result as the tag rerun.result.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .config.call import parser_of
from .config.compose import compose
from .core.errors import ResultError, UserError
from .core.exits import command
from .core.paths import main_root
from .core.signals import end_on_signals


@command
def main(arguments: Sequence[str]) -> None:
    """Rerun what the reference names, and print and tag the results."""
    end_on_signals()
    parser = parser_of("rerun", __doc__)
    parser.add_argument("reference", metavar="REFERENCE", help="what to train again, see above")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of its configuration")
    parser.add_argument("--here", action="store_true", help="train with the code of this folder, not with the run's")
    parser.add_argument("--keep", action="store_true", help="keep the folder that the code is restored in")
    options = parser.parse_intermixed_args(arguments)
    for override in options.overrides:
        if "=" not in override or override.startswith(("framework=", "seeds=")):
            raise UserError(f"{override}: allowed: key=value, and not framework or seeds, which the run decides")
    from .reproduction import (
        rerun,
        revision,
        workspace,
    )  # MLflow takes seconds to import, which --help need not wait for
    from .reproduction.origin import Origin
    from .tracking.tracker import Tracker

    root = main_root()
    tracker = Tracker(compose().tracking, root)
    match = revision.find(tracker.client, options.reference)
    seeds = rerun.seeds_to_repeat(tracker.client, match, options.reference)
    groups = rerun.trainings(seeds)
    chosen = sum(map(len, groups))
    taken_for = f"{match.kind}, {match.note}" if match.note else match.kind
    print(f"{options.reference}: {taken_for}; {chosen} seed{'s' * (chosen > 1)} to train again")
    outcomes = []
    workspace.tidy(root)
    with tempfile.TemporaryDirectory(prefix=workspace.PREFIX) as scratch:
        workspace.own(Path(scratch))
        code = workspace.present() if options.here else None
        how = rerun.Rerun(tracker, root, Path(scratch), tuple(options.overrides), code, keep=options.keep)
        for group in groups:
            origin = Origin.of(tracker.client, group, Path(scratch))
            print(f"\n{origin.title}", flush=True)
            outcomes += how.repeat(origin)
    tracker.drain()
    print()
    for outcome in outcomes:
        print(f"{outcome.run.name} ({outcome.run.id}): {outcome.sentence}")
    if different := [outcome for outcome in outcomes if not outcome.same]:
        raise ResultError(f"{len(different)} of {len(outcomes)} seeds: not {rerun.SAME}; {different[0].sentence}")
    print(rerun.SAME if len(outcomes) == 1 else f"{rerun.SAME}: all {len(outcomes)} seeds")


if __name__ == "__main__":
    main(sys.argv[1:])
