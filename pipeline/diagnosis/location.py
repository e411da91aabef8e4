"""Check what a move, a copy or a worktree of the repository breaks: absolute paths of pip and of git."""

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..tracking.health import Mark


def check(root: Path) -> Iterator[tuple[Mark, str]]:
    """Yield a mark and a message for each finding. `root`: see `core.paths.main_root`."""
    findings = [*_environment(root), *_worktree(root)]
    yield from findings or [("ok", str(root))]


def _environment(root: Path) -> Iterator[tuple[Mark, str]]:
    """Check that the virtual environment in the repository was set up where the repository is."""
    distribution = next(iter(metadata.distributions(name="experiment-tracking-pipeline")), None)
    origin = json.loads((distribution and distribution.read_text("direct_url.json")) or "{}").get("url", "")
    before = Path(unquote(urlsplit(origin).path))
    if origin.startswith("file:") and before.resolve() != root.resolve() and Path(sys.prefix).is_relative_to(root):
        runs = f"`pytest` takes the code of {before}" if before.exists() else "its `dvc` does not start"
        yield "warn", f"{sys.prefix}: was set up in {before}, before a move or a copy: {runs}; run `make setup`"


def _worktree(root: Path) -> Iterator[tuple[Mark, str]]:
    """Say that a worktree of git has its own store, or that its repository was moved away."""
    if not (root / ".git").is_file():
        return
    repository = root / (root / ".git").read_text(encoding="utf-8", errors="replace").partition("gitdir: ")[2].strip()
    if not repository.exists():
        repair = f"run `git worktree repair {root}` in the repository"
        yield "warn", f"{root / '.git'}: names {repository}, which is gone: one of the two was moved; {repair}"
    elif repository.parent.name == "worktrees":
        main = repository.parents[2]
        own = "a worktree with its own store, journals and checkpoints, which `git worktree remove` deletes"
        yield "ok", f"{root}: {own}; MLFLOW_TRACKING_URI=sqlite:///{main}/mlflow.db logs to the store of {main}"
