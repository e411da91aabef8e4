"""Register the resolvers that conf/ uses; `dvc exp run` loads this plugin (hydra.plugins_path in .dvc/config)."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[4])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from pipeline.config.compose import register  # noqa: E402

register()
