"""Describe the prepared data on one page, before anything is trained on them (stage `describe`).

  python -m pipeline.describe data=fashion_mnist     the page of any data, fetched and prepared where that is needed

Writes results/data, and logs the page to MLflow once for each fingerprint of data.
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

stage_sections("describe", "tracking")


@command
def main(arguments: Sequence[str]) -> None:
    """Describe the prepared data (`--params`), or any data."""
    end_on_signals()
    call = parse_call("describe", arguments, __doc__, output=True)
    dataset = Dataset.open(PREPARED) if call.snapshot else obtain(call.config.data, main_root())
    describe(dataset, call.output or RESULTS / "data", call.config.tracking)


if __name__ == "__main__":
    main(sys.argv[1:])
