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


def shown(folder: Path) -> str:
    """Return a folder relative to the working folder, if it is inside: where that lies says nothing to others."""
    place, here = folder.resolve(), Path.cwd().resolve()
    return str(place.relative_to(here)) if place.is_relative_to(here) else str(place)


def main_root() -> Path:
    """Return the root of the main repository, which holds what outlives a temporary workspace: store, caches, journals.

    It is the folder above the working folder with this project's code and `conf/`, whatever else lies above: another
    project may have a `dvc.yaml` or a `.dvc` there. DVC names its own root in `DVC_ROOT`, also inside the temporary
    workspaces of `dvc exp run --temp` and `--queue`, which lie below `<main>/.dvc/tmp/exps/`.
    """
    here = Path.cwd().resolve()
    home = next((folder for folder in (here, *here.parents) if _is_ours(folder)), here)
    if (root := os.environ.get("DVC_ROOT")) and os.environ.get("DVC_STAGE") and _is_ours(Path(root)):
        return Path(root)
    for folder in home.parents:
        if folder.name == ".dvc":
            parts = home.relative_to(folder).parts  # tmp/exps/<workspace>/..., or tmp/exps/standalone/<workspace>/...
            for main in (folder.parent.joinpath(*parts[4:]), folder.parent.joinpath(*parts[3:]), folder.parent):
                if _is_ours(main):
                    return main
    return home


def _is_ours(folder: Path) -> bool:
    return (folder / "conf/config.yaml").exists() and (folder / "pipeline/core/paths.py").exists()
