"""How a command starts and ends: arguments, signals, exit codes.

Exit codes: 0 done, 1 failed, 2 a user's mistake (one message, no traceback), 3 another process does the same already,
130 and 143 interrupted (SIGINT, SIGTERM).
"""

import errno
import functools
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from .config import Config, compose, load
from .errors import BusyError, ResultError, UserError
from .interruption import end_on_signals, end_with_parent

_MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # of the disk, not of ours


def user_errors(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    """Let `UserError` end the program with code 2 and its message, and an interruption without a traceback."""

    @functools.wraps(main)
    def wrapper(arguments: Sequence[str]) -> None:
        try:
            main(arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except ResultError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except OSError as error:
            if error.errno not in _MENDABLE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            print(f"error: {where}{error.strerror}; mend that, then run the same command: it goes on", file=sys.stderr)
            raise SystemExit(1) from None
        except BusyError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(3) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapper


def end_on_sigterm() -> None:
    """Close open runs and files on the way out when a signal comes; a stage of DVC also ends when `dvc` does."""
    end_on_signals()
    if os.environ.get("DVC_STAGE"):
        end_with_parent()


@dataclass(frozen=True)
class Call:
    """What a stage was asked to do."""

    config: Config
    output: Path | None
    """Where a job outside the DVC pipeline writes; None: the fixed folders of the DVC stage."""
    snapshot: bool
    """Whether the configuration was read from a snapshot (`--params`), as the stages of DVC do."""


def parse_call(stage: str, arguments: Sequence[str]) -> Call:
    """`[--params FILE] [--output DIR] [key=value ...]`: a snapshot, else `conf/`, and overrides. Raises `UserError`."""
    parser = ArgumentParser(prog=f"python -m pipeline.{stage}")
    parser.add_argument("--params", type=Path, metavar="FILE", help="a composed configuration (default: compose conf/)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write here (default: the DVC stage's own folders)")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args(arguments)
    if not options.params:
        return Call(compose(options.overrides), options.output, snapshot=False)
    config = load(options.params, options.overrides)
    declared = _STAGES.get(stage)
    return Call(cast(Config, _Declared(stage, config, declared)) if declared else config, options.output, snapshot=True)


Stage = Callable[..., None]
_STAGES: dict[str, tuple[str, ...]] = {}


class _Declared:
    """The configuration as a stage of DVC may read it: the sections that it declared, and no others."""

    def __init__(self, stage: str, whole: Any, sections: Sequence[str], prefix: str = "") -> None:
        self._stage, self._whole, self._sections, self._prefix = stage, whole, sections, prefix

    def __getattr__(self, name: str) -> Any:
        section = self._prefix + name
        if section in self._sections:
            return getattr(self._whole, name)
        if any(other.startswith(f"{section}.") for other in self._sections):
            return _Declared(self._stage, getattr(self._whole, name), self._sections, f"{section}.")
        raise AttributeError(
            f"the stage {self._stage} reads the section {section}, which it does not declare (see `stage_sections`): "
            "DVC would not run it again when that changes"
        )


def stage_sections(name: str, *sections: str) -> tuple[str, ...]:
    """Declare which sections of the configuration the stage `name` is handed.

    A stage that read a section which `dvc.yaml` does not list under its `params:` would silently be stale; this is what
    the tests compare with `dvc.yaml`.
    """
    _STAGES[name] = sections
    return sections


def stage(name: str, *sections: str) -> Callable[[Stage], Callable[[Sequence[str]], None]]:
    """Make a function the DVC stage `name`: it is handed these sections of the configuration and no others."""
    stage_sections(name, *sections)

    def decorate(function: Stage) -> Callable[[Sequence[str]], None]:
        @functools.wraps(function)
        @user_errors
        def main(arguments: Sequence[str]) -> None:
            end_on_sigterm()
            config = parse_call(name, arguments).config
            function(**select(config, sections))

        return main

    return decorate


def select(config: Config, sections: Sequence[str]) -> dict[str, Any]:
    """The named sections of the configuration, as keyword arguments: `compare.speed` as `speed`."""
    return {section.rpartition(".")[2]: attrgetter(section)(config) for section in sections}


def sections_of(name: str) -> tuple[str, ...]:
    """The sections that the stage `name` was declared with; its module must have been imported."""
    return _STAGES[name]


def main_root() -> Path:
    """The main repository's root: what outlives a temporary workspace of `dvc exp run` (store, artifacts, caches).

    DVC names it in `DVC_ROOT`, also inside the temporary workspaces of `--temp` and `--queue`.
    """
    if (root := os.environ.get("DVC_ROOT")) and os.environ.get("DVC_STAGE"):
        return Path(root)
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if folder.name == ".dvc":  # <main>/.dvc/tmp/exps/...
            return folder.parent
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    return here
