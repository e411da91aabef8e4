"""Promote the better side of a comparison to the registry's champion, as an ONNX file that is proven.

  python -m pipeline.promote                    results/comparison, as `dvc repro` made it
  python -m pipeline.promote COMPARISON         a folder with comparison.json, or a run of `compare`: its id or name

The side that is better goes on, or of two equivalent ones the faster; always its first seed. It becomes a version of
the model --name (default: <network>-<data>), and the challenger. It takes the champion's place if the same paired test
finds it better, or equivalent and faster; the champion becomes `previous`. A second time changes nothing.

Ends with 1 and changes no champion if the verdict is inconclusive, parity failed, or the champion's data are others.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .config.call import parser_of
from .config.compose import compose
from .core.errors import UserError
from .core.exits import command
from .core.paths import RESULTS, main_root
from .core.signals import end_on_signals


@command
def main(arguments: Sequence[str]) -> None:
    """Promote, and print which version is the champion."""
    end_on_signals()
    parser = parser_of("promote", __doc__)
    parser.add_argument("comparison", nargs="?", default="", metavar="COMPARISON", help="default: results/comparison")
    parser.add_argument("--name", help="of the registered model (default: <network>-<data>)")
    options = parser.parse_args(arguments)
    from .comparison.from_mlflow import dataset_of  # these import MLflow, which --help need not wait for
    from .exports.candidate import Candidate
    from .exports.promotion import Promoter, read_document
    from .tracking.tracker import Tracker

    config = compose()
    tracker = Tracker(config.tracking, main_root())
    with tempfile.TemporaryDirectory(prefix="promote-") as folder:
        scratch = Path(folder)
        document, run = read_document(tracker.client, options.comparison, RESULTS, scratch)
        candidate = Candidate.of(document, options.comparison or str(RESULTS / "comparison"))
        dataset = dataset_of(candidate.fingerprint)
        if dataset is None:
            raise UserError(
                f"data.fingerprint = {candidate.fingerprint}: these data are not prepared here; `dvc repro prepare`, "
                "or `dvc pull`"
            )
        name = options.name or f"{candidate.network}-{candidate.data}".replace("/", "-")
        promotion = Promoter(tracker, config, scratch).promote(candidate, name, dataset, run)
    print(promotion.sentence)
    print(f"serve it: python -m pipeline.serve {promotion.version.name}@champion")


if __name__ == "__main__":
    main(sys.argv[1:])
