"""List every command with one line each: `python -m pipeline`."""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .core.errors import UserError
from .core.exits import command

_STAGES = (
    *(
        "config",
        "download",
        "prepare",
        "describe",
        "trace",
        "parity",
        "train",
        "evaluate",
        "export",
        "speed",
        "compare",
    ),
)
_OTHERS = ("doctor", "rerun", "lineage", "promote", "serve", "sync", "ui")


@command
def main(arguments: Sequence[str]) -> None:
    """Print the list. Raises `UserError` for an argument: each command is a module."""
    if others := [argument for argument in arguments if argument not in ("-h", "--help")]:
        is_command = others[0] in (*_STAGES, *_OTHERS)
        advice = f"python -m pipeline.{others[0]}" if is_command else "see `python -m pipeline`"
        raise UserError(f"{others[0]}: a command is a module of its own; {advice}")
    print("The same network in several frameworks: proven equal, trained, compared, tracked.\n")
    print("Stages of the pipeline, in the order of `dvc repro`; each is also a command:")
    print("\n".join(_lines(_STAGES)))
    print("\nOther commands:")
    print("\n".join(_lines(_OTHERS)))
    print("\n`--help` after a command lists its arguments. Exit codes: 0 done, 1 failed, 2 mistake of the user,")
    print("3 another process already does the same, 130 and 143 interrupted.")


def _lines(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        module, package = Path(__file__).with_name(f"{name}.py"), Path(__file__).parent / name / "__main__.py"
        path = module if module.exists() else package
        text = (
            ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        )  # parsed, as an import would load the frameworks
        line = re.sub(r" \(stages? [^)]*\)", "", text.splitlines()[0])  # the headings say it already
        yield f"  python -m pipeline.{name:9} {line}"


if __name__ == "__main__":
    main(sys.argv[1:])
