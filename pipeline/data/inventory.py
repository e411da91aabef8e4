"""The inventory of a user's own images: a digest of each file, beside the prepared data, whose bytes hold no names.

Data from a library have none: upstream's checksums name their files.
"""

from pathlib import Path
from typing import Final

from ..core.files import read_json

INVENTORY: Final = "images.json"


def inventory_of(prepared: Path) -> Path:
    """Return where the inventory of prepared data lies, if they have one: of the DVC stages it is in `data/raw`."""
    if prepared.parent.name == "cache":
        return prepared.with_name(f"{prepared.name}.{INVENTORY}")
    return prepared.parent / "raw" / INVENTORY


def digests_of(inventory: Path) -> dict[str, str]:
    """Return the BLAKE2b of each file, 32 hexadecimal digits, by its path in the user's folder. Raises `UserError`."""
    parts: dict[str, dict[str, dict[str, str]]] = read_json(inventory)["parts"]
    return {name: digest for classes in parts.values() for files in classes.values() for name, digest in files.items()}
