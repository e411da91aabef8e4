"""Images of a user's folder that links put into two splits: what is learnt is then tested."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.errors import UserError
from .folder_names import shown


def shared_files(root: Path, parts: Mapping[str, Mapping[str, Sequence[Path]]], key: str) -> list[str]:
    """Return a sentence for each part that shares images with one before it, through links, hard ones too.

    `parts`: images below `root` by part and class. Raises `UserError` if all images of a class in a part are shared,
    OSError for a file that cannot be read.
    """
    notes: list[str] = []
    seen: dict[tuple[int, int], str] = {}
    whole: list[tuple[str, str, set[tuple[int, int]]]] = []
    for part, by_class in parts.items() if len(parts) > 1 else ():
        mine: dict[tuple[int, int], str] = {}
        again: list[str] = []
        for name, paths in by_class.items():
            found = [(path, (status.st_dev, status.st_ino)) for path in paths for status in [path.stat()]]
            both = [f"{shown(str(path.relative_to(root)))} (in {seen[node]})" for path, node in found if node in seen]
            nodes = {node for _, node in found}
            inside = [f"{old} in {split}" for split, old, those in whole if split != part and those <= nodes]
            inside = [f"{shown(name)} in {part}"] if len(both) == len(paths) else inside
            if inside:
                raise UserError(
                    f"{key}: all images of {inside[0]} are, through links, those of another "
                    f"split: {', '.join(both[:2])}; allowed: other images in each split, as a test on those that "
                    "were learnt shows nothing"
                )
            again += both
            mine |= dict.fromkeys(nodes, part)
            whole.append((part, shown(name), nodes))
        if again:
            more = f" and {len(again) - 3:,} more" if len(again) > 3 else ""
            notes.append(
                f"Images of {part} that are, through links, in another split too ({len(again):,}), so that results are "
                f"too good: {', '.join(again[:3])}{more}"
            )
        seen |= {node: role for node, role in mine.items() if node not in seen}
    return notes
