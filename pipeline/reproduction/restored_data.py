"""The prepared data of a run by their fingerprint: on this machine, from DVC, else fetched and prepared anew."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..core.errors import UserError
from ..core.paths import PREPARED
from ..core.sentences import first_of
from ..data.cache import with_fingerprint
from ..data.dataset import Dataset
from ..data.inventory import digests_of, inventory_of
from .dvc_cache import fetch_folder

Prepare = Callable[[], None]
_MOST: Final = 5  # names in a sentence


def restore(root: Path, folder: Path, fingerprint: str, md5: str, prepare: Prepare) -> str:
    """Put the data with this fingerprint to `folder/data/prepared`; return in words where they came from.

    `md5`: DVC's, of the folder; empty: unknown. `prepare`: fetches and prepares the data of the run's configuration
    there, with whatever result. Every byte is read: data that were changed on disk are not what they say they are.
    """
    target = folder / PREPARED
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    for found in (dataset.folder for dataset in with_fingerprint(root, fingerprint)):
        if _content(found) == fingerprint:
            target.symlink_to(found)
            return str(found.relative_to(root))
        print(f"{found}: its bytes are not those of its fingerprint {fingerprint[:8]}: not used", flush=True)
    if md5 and fetch_folder(root, md5, target) and _content(target) == fingerprint:
        return "the cache or a remote of DVC"
    shutil.rmtree(target, ignore_errors=True)
    prepare()
    return "its provider"


def fingerprint_in(folder: Path) -> str:
    """Return the fingerprint of the data that `folder/data/prepared` says to hold; empty: it holds none."""
    try:
        facts = json.loads((folder / PREPARED / "dataset.json").read_text(encoding="utf-8"))
        return str(facts["fingerprint"])
    except (OSError, ValueError, KeyError):
        return ""


def changed_files(then: Path | None, folder: Path) -> str:
    """Return which of a user's own images differ, in words; empty if the list of either is missing.

    `then`: the run's inventory. `folder`: as of `fingerprint_in`.
    """
    now = inventory_of(folder / PREPARED)
    if then is None or not now.exists():
        return ""
    before, after = digests_of(then), digests_of(now)
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    said = [f"{name} ({_what(before.get(name), after.get(name))})" for name in names]
    return first_of(said, _MOST)


def _what(before: Any, after: Any) -> str:
    if before is None:
        return "new"
    return "gone" if after is None else "changed"


def _content(folder: Path) -> str:
    try:
        return Dataset.open(folder).content_fingerprint()
    except (UserError, OSError):
        return ""


def prepare_with(code: Path, python: str, variables: dict[str, str], overrides: list[str]) -> Prepare:
    """Return a function that downloads and prepares with the code of a workspace. It raises `UserError` as they end."""

    def prepare() -> None:
        for stage in ("download", "prepare"):
            command = [python, "-m", f"pipeline.{stage}", "--params", "params.yaml", *overrides]
            if subprocess.run(command, cwd=code, env=variables).returncode:
                raise UserError(f"the data of the run cannot be restored: `pipeline.{stage}` of its code failed")

    return prepare
