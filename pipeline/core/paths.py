"""The root of the main repository, and the folders that stages read and write."""

import os
from pathlib import Path
from typing import Final

RESULTS: Final = Path("results")
"""Outputs of the DVC stages, relative to the workspace."""
RAW: Final = Path("data/raw")
"""Output of the stage `download`."""
PREPARED: Final = Path("data/prepared")
"""Output of the stage `prepare`."""


def main_root() -> Path:
    """Return the root of the main repository, which holds what outlives a temporary workspace: store, caches, journals.

    DVC names it in `DVC_ROOT`, also inside the temporary workspaces of `dvc exp run --temp` and `--queue`.
    """
    if (root := os.environ.get("DVC_ROOT")) and os.environ.get("DVC_STAGE"):
        return Path(root)
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if folder.name == ".dvc":  # <main>/.dvc/tmp/exps/...
            return folder.parent
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    return here
