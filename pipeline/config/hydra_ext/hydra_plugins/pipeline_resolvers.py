"""Loaded by `dvc exp run` (hydra.plugins_path in .dvc/config): makes the resolvers that conf/ uses known to DVC."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[4])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from pipeline.config.compose import register  # noqa: E402

register()
