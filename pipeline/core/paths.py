"""Where things lie that outlive a temporary workspace: the main repository's root, and the folders below it."""

import os
from pathlib import Path
from typing import Final

RESULTS: Final = Path("results")
"""What the stages of DVC leave, relative to the workspace."""
RAW: Final = Path("data/raw")
"""What the stage `download` leaves."""
PREPARED: Final = Path("data/prepared")
"""What the stage `prepare` leaves."""


def main_root() -> Path:
    """Return the main repository's root: what outlives a temporary workspace of `dvc exp run` (store, caches) is there.

    DVC names it in `DVC_ROOT`, also inside the temporary workspaces of `--temp` and `--queue`.
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
