"""Check that all frameworks compute the same function (stage `parity`).

  python -m pipeline.parity     reads results/<framework>/trace, writes results/parity

Compares the traces in NumPy, level by level. If they differ, ends with code 1 and names the first array or step that
differs.
"""

import sys

from .config.call import stage
from .config.schema.parity import ParityConfig
from .config.schema.tracking import TrackingConfig
from .core import frameworks
from .core.errors import ParityError
from .core.paths import RESULTS, main_root
from .equality.levels import ParityResult, compare_traces
from .equality.trace import Trace
from .reports.parity import publish_parity
from .tracking.store import ensure_store


@stage("parity", "parity", "tracking", description=__doc__)
def main(*, parity: ParityConfig, tracking: TrackingConfig) -> None:
    """Compare every framework with the reference and print a line per level. Raises `ParityError` if a level fails."""
    ensure_store(main_root())  # before the work
    reference, *arms = (Trace(name, RESULTS / name / "trace") for name in frameworks.names())
    levels = {arm.framework: list(compare_traces(reference, arm, parity)) for arm in arms}
    result = ParityResult.of(reference.framework, levels)
    publish_parity(result, reference, arms, parity, RESULTS / "parity", tracking)
    if result.reason:
        raise ParityError(result.reason)


if __name__ == "__main__":
    main(sys.argv[1:])
