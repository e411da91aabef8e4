"""A command's arguments to the sections of the configuration that it may read."""

import functools
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, cast

from ..core.exits import exit_codes
from ..core.signals import end_on_signals
from .compose import compose, load
from .schema.whole import Config

OVERRIDES: Final = """\
A key=value changes the configuration: `train.epochs=2`, `model=lenet5`, `data=folder data.root=/path`.
`python -m pipeline.train --cfg job` prints every key with its value; an unknown key or a bad value ends with a message
that names what is allowed, and with code 2, before any work is done.
"""


@dataclass(frozen=True)
class Call:
    """What a command was asked to do."""

    config: Config
    output: Path | None
    """Where a command outside of the DVC pipeline writes; None: the fixed folders of the DVC stage."""
    snapshot: bool
    """Whether the configuration was read from a snapshot (`--params`), as the stages of DVC do."""


def parser_of(command: str, description: str | None) -> ArgumentParser:
    """Return a parser whose help begins with `description`, the docstring of the command's module."""
    return ArgumentParser(
        prog=f"python -m pipeline.{command}", description=description, formatter_class=RawDescriptionHelpFormatter
    )


def parse_call(stage: str, arguments: Sequence[str], description: str | None = None, *, output: bool = False) -> Call:
    """Read `[--params FILE] [--output DIR] [key=value ...]`: a snapshot, else `conf/`, and overrides.

    `output`: whether the command writes where it is told to. Raises `UserError`.
    """
    parser = parser_of(stage, description)
    parser.epilog = OVERRIDES
    parser.add_argument("--params", type=Path, metavar="FILE", help="a composed configuration (default: compose conf/)")
    if output:
        parser.add_argument("--output", type=Path, metavar="DIR", help="write here (default: the DVC stage's folders)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    options = parser.parse_intermixed_args(arguments)
    place: Path | None = getattr(options, "output", None)
    if not options.params:
        return Call(compose(options.overrides), place, snapshot=False)
    config = load(options.params, options.overrides)
    declared = _STAGES.get(stage)
    seen = cast(Config, _DeclaredSections(stage, config, declared)) if declared else config
    return Call(seen, place, snapshot=True)


Stage = Callable[..., None]
_STAGES: dict[str, tuple[str, ...]] = {}


class _DeclaredSections:
    """The configuration as a stage of DVC may read it: the sections that it declared, and no others."""

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
    """Declare which sections of the configuration the stage `name` is handed.

    A stage that reads a section which `dvc.yaml` does not list under its `params:` would silently be stale; this is
    what the tests compare with `dvc.yaml`.
    """
    _STAGES[name] = sections
    return sections


def stage(name: str, *sections: str, description: str | None) -> Callable[[Stage], Callable[[Sequence[str]], None]]:
    """Make a function the DVC stage `name`: it is handed these sections of the configuration and no others."""
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
    """Return the named sections of the configuration as keyword arguments: `compare.speed` as `speed`."""
    return {section.rpartition(".")[2]: attrgetter(section)(config) for section in sections}


def sections_of(name: str) -> tuple[str, ...]:
    """Return the sections that the stage `name` was declared with; its module must have been imported."""
    return _STAGES[name]
