"""Fetch a folder from DVC's cache or its remotes by its MD5 alone, in a scratch repository of DVC's."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml


def fetch_folder(root: Path, md5: str, target: Path) -> bool:
    """Put the folder with this MD5 (`<32 digits>.dir`) to `target`, which is not there; return whether DVC has it.

    `root`: of the project, whose cache and remotes are asked. Nothing of its DVC files changes.
    """
    if not (root / ".dvc").is_dir():
        return False
    with tempfile.TemporaryDirectory(prefix="dvc-") as scratch:
        place = Path(scratch)
        if _dvc(place, "init", "--no-scm", "-q").returncode:
            return False
        for name, value in _settings(root):
            _dvc(place, "config", name, value)
        cache = _dvc(root, "cache", "dir").stdout.decode().strip()
        _dvc(place, "config", "cache.dir", cache or str(root / ".dvc/cache"))
        _dvc(place, "config", "cache.type", "reflink,copy")
        out = {"outs": [{"md5": md5, "hash": "md5", "path": "found"}]}
        (place / "found.dvc").write_text(yaml.safe_dump(out), encoding="utf-8")
        for command in (("checkout", "found.dvc"), ("pull", "found.dvc")):
            if _dvc(place, *command).returncode == 0 and (place / "found").is_dir():
                shutil.copytree(place / "found", target)
                return True
    return False


def _settings(root: Path) -> list[tuple[str, str]]:
    """Return names and values of the project's remotes and of the choice among them, addresses made absolute."""
    found = []
    for line in _dvc(root, "config", "--list", "--show-origin").stdout.decode(errors="replace").splitlines():
        origin, _, pair = line.strip().partition("\t") if "\t" in line else line.strip().partition(" ")
        name, _, value = pair.strip().partition("=")
        if name.startswith("remote.") or name == "core.remote":
            if name.endswith(".url") and "://" not in value and not Path(value).is_absolute():
                value = str((root / Path(origin).parent / value).resolve())
            found.append((name, value))
    return found


def _dvc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True)
