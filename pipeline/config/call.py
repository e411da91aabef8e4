"""Parse a command's arguments into the sections of the configuration that it may read."""

import functools
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, cast

from ..core.claim import require_free
from ..core.exits import exit_codes
from ..core.signals import end_on_signals
from .compose import compose, load, text_of
from .schema.whole import Config

OVERRIDES: Final = """\
A key=value changes the configuration: `train.epochs=2`, `model=lenet5`, `data=folder data.root=/path`.
`python -m pipeline.train --cfg job` prints every key with its value; an unknown key or a bad value ends with a message
that names what is allowed, and with code 2, before any work is done.
"""


@dataclass(frozen=True)
class Call:
    """A command's parsed arguments."""

    config: Config
    output: Path | None
    """Folder that a command outside of the DVC pipeline writes to; None: the fixed folders of the DVC stage."""
    snapshot: bool
    """Whether the configuration was read from a snapshot (`--params`), as in a stage of DVC."""
    text: str
    """The whole configuration as `params.yaml` holds it, for the record: also what a DVC stage did not declare."""


def parser_of(command: str, description: str | None) -> ArgumentParser:
    """Return a parser for `python -m pipeline.<command>`; `description`: the docstring of the command's module."""
    return ArgumentParser(
        prog=f"python -m pipeline.{command}", description=description, formatter_class=RawDescriptionHelpFormatter
    )


def parse_call(stage: str, arguments: Sequence[str], description: str | None = None, *, output: bool = False) -> Call:
    """Parse `[--params FILE] [--output DIR] [key=value ...]`: read the snapshot, else compose `conf/`; apply overrides.

    `output`: whether the command has the option `--output`. Raises `UserError` if the configuration is invalid.
    """
    parser = parser_of(stage, description)
    parser.epilog = OVERRIDES
    parser.add_argument("--params", type=Path, metavar="FILE", help="a composed configuration (default: compose conf/)")
    if output:
        parser.add_argument("--output", type=Path, metavar="DIR", help="write here (default: the DVC stage's folders)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    options = parser.parse_intermixed_args(arguments)
    folder: Path | None = getattr(options, "output", None)
    if folder:
        require_free("--output", folder)
    if not options.params:
        composed = compose(options.overrides)
        return Call(composed, folder, snapshot=False, text=text_of(composed))
    config = load(options.params, options.overrides)
    text = text_of(config)
    if sections := _STAGES.get(stage):
        config = cast(Config, _DeclaredSections(stage, config, sections))
    return Call(config, folder, snapshot=True, text=text)


Stage = Callable[..., None]
_STAGES: dict[str, tuple[str, ...]] = {}
"""By stage, the sections that it declared."""


class _DeclaredSections:
    """A configuration that gives a DVC stage only the sections that it declared; any other raises AttributeError."""

    def __init__(self, stage: str, whole: Any, sections: Sequence[str], prefix: str = "") -> None:
        self._stage, self._whole, self._sections, self._prefix = stage, whole, sections, prefix

    def __getattr__(self, name: str) -> Any:
        section = self._prefix + name
        if section in self._sections:
            return getattr(self._whole, name)
        if any(other.startswith(f"{section}.") for other in self._sections):
            return _DeclaredSections(self._stage, getattr(self._whole, name), self._sections, f"{section}.")
        raise AttributeError(
            f"the stage {self._stage} reads the section {section}, which it does not declare (see `stage_sections`): "
            "DVC would not run it again when that changes"
        )


def stage_sections(name: str, *sections: str) -> tuple[str, ...]:
    """Declare the sections of the configuration that the stage `name` reads; return them.

    DVC would not run a stage again after a change of a section that `dvc.yaml` does not list under its `params:`. The
    tests compare these declarations with `dvc.yaml`.
    """
    _STAGES[name] = sections
    return sections


def stage(name: str, *sections: str, description: str | None) -> Callable[[Stage], Callable[[Sequence[str]], None]]:
    """Make a function the `main` of the DVC stage `name`: it gets the named sections as keyword arguments."""
    stage_sections(name, *sections)

    def decorate(function: Stage) -> Callable[[Sequence[str]], None]:
        @functools.wraps(function)
        def main(arguments: Sequence[str]) -> None:
            with exit_codes():
                end_on_signals()
                config = parse_call(name, arguments, description).config
                function(**select(config, sections))

        return main

    return decorate


def select(config: Config, sections: Sequence[str]) -> dict[str, Any]:
    """Return the named sections as keyword arguments, each by its last name: `compare.speed` as `speed`."""
    return {section.rpartition(".")[2]: attrgetter(section)(config) for section in sections}


def sections_of(name: str) -> tuple[str, ...]:
    """Return the sections that the stage `name` declared. Raises KeyError if its module was not imported."""
    return _STAGES[name]
