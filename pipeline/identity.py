"""What decides the bits of a training: its settings, its data, the code and the versions of what computes."""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Final

_PACKAGES: Final = {"tensorflow": ("tensorflow", "keras", "numpy"), "pytorch": ("torch", "numpy")}
_CODE: Final = ("models/*.py", "models/{framework}/*.py", "data/plan.py", "data/feed.py", "train.py")


def code_digest(framework: str) -> str:
    """Hexadecimal, of the modules that compute."""
    package, digest = Path(__file__).parent, hashlib.blake2b(digest_size=16)
    for pattern in _CODE:
        for path in sorted(package.glob(pattern.format(framework=framework))):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def versions(framework: str) -> dict[str, str]:
    """Of the packages that compute, by name."""
    return {name: metadata.version(name) for name in _PACKAGES[framework]}
