"""Describe the prepared data on one page (stage `describe`).

  python -m pipeline.describe data=fashion_mnist     the page of any data set, downloaded and prepared if necessary

Writes results/data, and logs the page to MLflow once per fingerprint of the data.
"""

import sys
from collections.abc import Sequence

from .config.call import parse_call, stage_sections
from .core.exits import command
from .core.paths import PREPARED, RESULTS, main_root
from .core.signals import end_on_signals
from .data.cache import obtain
from .data.dataset import Dataset
from .reports.data_page import describe
from .tracking.store import ensure_store

stage_sections("describe", "tracking")


@command
def main(arguments: Sequence[str]) -> None:
    """Describe the prepared data (`--params`), or any data set."""
    end_on_signals()
    call = parse_call("describe", arguments, __doc__, output=True)
    ensure_store(main_root())  # before the work
    dataset = Dataset.open(PREPARED) if call.snapshot else obtain(call.config.data, main_root())
    describe(dataset, call.output or RESULTS / "data", call.config.tracking)


if __name__ == "__main__":
    main(sys.argv[1:])
