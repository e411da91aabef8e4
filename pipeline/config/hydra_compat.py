"""All code that depends on undocumented behaviour of Hydra (seen in 1.3.8). Read it first when the version changes.

tests/test_compat.py has a test for each function, which says what to do when it breaks. Importing Hydra takes a while,
so the functions import it, not this module.
"""

import copy
import importlib
import itertools
import logging
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ..core.errors import UserError

_PLUGINS: Final = str(Path(__file__).with_name("hydra_ext"))


@dataclass(frozen=True)
class Source:
    """What Hydra composes: `--config-name` and `--config-dir`, beside the folder of the project."""

    name: str = "config"
    directory: Path | None = None


@dataclass(frozen=True)
class Swept:
    """An override that gives a key several values, as Hydra's parser understands it."""

    text: str
    """The override as it was given."""
    key: str
    choices: tuple[str, ...] = ()
    """The values, as in an override; empty: an interval or a range."""
    values: tuple[int | float, ...] = ()
    """Those of a range; empty: an interval or choices."""
    low: int | float = 0
    """Ends of an interval; both are int if it was cast by `int(...)`."""
    high: int | float = 0
    tags: frozenset[str] = frozenset()


def find_plugins() -> None:
    """Let Hydra find the plugins of this project: it takes them from packages `hydra_plugins` on Python's path."""
    if _PLUGINS not in sys.path:
        sys.path.append(_PLUGINS)


def argument_parser() -> ArgumentParser:
    """Return the parser of Hydra's own options."""
    from hydra._internal.utils import get_args_parser

    parser: ArgumentParser = get_args_parser()
    return parser


@contextmanager
def aside() -> Iterator[None]:
    """Set the Hydra that runs this process, if any, aside for as long as the context lasts: another may compose."""
    from hydra.core.global_hydra import GlobalHydra

    instance = GlobalHydra.instance()
    running, instance.hydra = instance.hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


@contextmanager
def started(conf: Path, source: Source) -> Iterator[Any]:
    """Yield a Hydra that reads `conf` and the source as `hydra.main` does; a running one is set aside."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    find_plugins()
    version.setbase("1.3")
    path = create_config_search_path(str(conf))
    if source.directory:
        folder = f"file://{source.directory.absolute()}"
        path.prepend("command-line", folder, SearchPathQuery(provider="schema", path=None))
    with aside():
        yield Hydra.create_main_hydra2("train", path)


@contextmanager
def resolving(composed: Any) -> Iterator[None]:
    """Let `${hydra:...}` mean the node `hydra` of this configuration, as in the task function of Hydra."""
    from hydra.core.hydra_config import HydraConfig

    instance = HydraConfig.instance()
    before = instance.cfg
    try:
        instance.set_config(composed)
        yield
    finally:
        instance.cfg = before


def compose(hydra: Any, source: Source, overrides: Sequence[str], *, number: int | None = None) -> Any:
    """Compose one run, or job `number` of a sweep, with the node `hydra`. Raises `HydraException`."""
    from hydra.types import RunMode
    from omegaconf import open_dict

    composed = hydra.compose_config(
        source.name, list(overrides), run_mode=RunMode.RUN, from_shell=False, with_log_configuration=False
    )
    if number is not None:
        with open_dict(composed):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
    return composed


def compose_sweep(hydra: Any, source: Source, overrides: Sequence[str]) -> Any:
    """Compose what all jobs of a sweep share, with the node `hydra`: swept keys keep their values of `conf/`."""
    from hydra.types import RunMode

    return hydra.compose_config(
        source.name,
        list(overrides),
        run_mode=RunMode.MULTIRUN,
        from_shell=False,
        validate_sweep_overrides=False,
        with_log_configuration=False,
    )


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of the task, and those of Hydra itself (`hydra.run.dir=...`)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    task = [each.input_line for each in parsed if not each.is_hydra_override()]
    return task, [each.input_line for each in parsed if each.is_hydra_override()]


def spaces(hydra: Any, overrides: Sequence[str]) -> tuple[list[str], list[Swept]]:
    """Return the overrides with one value, and those with several: choices, ranges, intervals.

    Raises `HydraException` if an override is malformed.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(overrides))
    fixed = [each.input_line for each in parsed if not each.is_sweep_override()]
    return fixed, [_swept(each) for each in parsed if each.is_sweep_override()]


def _swept(override: Any) -> Swept:
    text, key, value = override.input_line, override.get_key_element(), override.value()
    tags = frozenset(getattr(value, "tags", ()))
    if override.is_interval_sweep():
        return Swept(text, key, low=value.start, high=value.end, tags=tags)
    if override.is_range_sweep():
        return Swept(text, key, values=tuple(value.range()) if value.step else (), tags=tags)
    return Swept(text, key, choices=tuple(override.sweep_string_iterator()), tags=tags)


def expand(hydra: Any, overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a sweep, as Hydra's own sweeper expands `key=1,2`, ranges and globs.

    Raises `HydraException` if an override is malformed.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(overrides))
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise HydraException(f"{override.input_line}: has no single values; allowed: 1,2,3, choice, range, glob")
        if override.is_sweep_override() and not list(override.sweep_string_iterator()):
            raise HydraException(
                f"{override.input_line}: matches nothing, so the sweep has no job; allowed: one value or more"
            )
    return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]


@contextmanager
def handing_out(
    jobs: Sequence[Sequence[str]],
    is_done: Callable[[int], bool] = lambda _: False,
    launcher: str = "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
) -> Iterator[None]:
    """Have Hydra's sweeper hand out these jobs: a second expansion differs where chance expands (`shuffle`).

    They were composed and checked, so the sweeper does not compose all of them before the first. Hydra's basic launcher
    leaves out the jobs, by number, that are done when it begins; it would compose each, and write what it composed. The
    class `launcher` gets no batch whose jobs are all done; it takes a batch as a whole, as it runs several at a time.
    """
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.utils import get_class

    used: Any = get_class(launcher)

    def split_arguments(_: Any, max_batch_size: int | None) -> list[list[list[str]]]:
        every = [list(job) for job in jobs]
        size = len(every) if max_batch_size in (None, -1) else max_batch_size
        return [every[start : start + size] for start in range(0, len(every), size)]

    def launch(self: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        returns: list[Any] = []
        numbered = list(enumerate(job_overrides, initial_job_idx))
        if not isinstance(self, BasicLauncher):
            all_done = all(is_done(number) for number, _ in numbered)
            return returns if all_done else original_launch(self, job_overrides, initial_job_idx)
        for done, group in itertools.groupby(numbered, key=lambda each: is_done(each[0])):
            numbers, batch = zip(*group, strict=True)
            returns += [] if done else original_launch(self, batch, numbers[0])
        return returns

    original_split, original_launch = BasicSweeper.split_arguments, used.launch
    original_check = BasicSweeper.validate_batch_is_legal
    BasicSweeper.split_arguments = staticmethod(split_arguments)
    BasicSweeper.validate_batch_is_legal = lambda *_: None
    used.launch = launch
    try:
        yield
    finally:
        BasicSweeper.split_arguments = staticmethod(original_split)
        BasicSweeper.validate_batch_is_legal, used.launch = original_check, original_launch


@dataclass(frozen=True)
class Parsed:
    """An override as Hydra's parser reads it."""

    text: str
    key: str
    """The key, or the group, without a package."""
    value: Any
    """For a sweep one of Hydra's objects; texts are without their quotes."""
    sets: bool
    """Whether it sets a key, as `a=1` and `++a=1` do: `+a=1` only adds one, `~a` removes one, `a@b=1` is of a group."""
    of_hydra: bool


@lru_cache(maxsize=1 << 14)
def parsed(override: str) -> Parsed:
    """Parse one override. Raises `HydraException` if it is malformed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType

    (found,) = OverridesParser.create().parse_overrides([override])
    sets = found.type in (OverrideType.CHANGE, OverrideType.FORCE_ADD) and found.package is None
    return Parsed(override, found.key_or_group, found.value(), sets, found.is_hydra_override())


def is_group(hydra: Any, key: str) -> bool:
    """Return whether a folder of this name holds choices, so that `key=...` chooses one of them."""
    return bool(hydra.config_loader.repository.group_exists(key))


def names_of_jobs(composed: Any) -> tuple[str, Mapping[str, Any], Any]:
    """Return `sweep.subdir` and `job.config.override_dirname` of the node `hydra`, not resolved, and `searchpath`."""
    from omegaconf import OmegaConf

    node: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    return node["sweep"]["subdir"], node["job"]["config"]["override_dirname"], node["searchpath"]


def override_dirname(overrides: Sequence[Parsed], config: Mapping[str, Any]) -> str:
    """Return `hydra.job.override_dirname`; `config`: its separators and the keys that it leaves out.

    As `get_overrides_dirname` does, for which a separator is a replacement of `re`. Raises what that raises.
    """
    leaves_out, between, equals = config["exclude_keys"], config["item_sep"], config["kv_sep"]
    texts = sorted(each.text for each in overrides if not each.of_hydra and each.key not in leaves_out)
    return re.sub("=", equals, between.join(texts))


def list_no_jobs() -> None:
    """Have Hydra's basic launcher not print a line for each job that it hands out."""
    logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)


@contextmanager
def searching(open_jobs: Callable[[Path], Sequence[tuple[str, Sequence[str]]]]) -> Iterator[None]:
    """Have the sweeper `search` hand out what `open_jobs` names for the folder of the search, until it names no more.

    A job is its own folder in that of the search, and its overrides. Hydra must have looked for plugins, as `started`
    has it do: it runs their modules again when it does.
    """
    find_plugins()
    sweeper = importlib.import_module("hydra_plugins.pipeline_search").SearchSweeper
    sweeper.open_jobs = staticmethod(open_jobs)
    try:
        yield
    finally:
        del sweeper.open_jobs


def value_of(override: str) -> Any:
    """Return the value in a `key=value`; None if Hydra cannot parse it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([override])[0].value()
    except HydraException:
        return None


def require_startable(composed: Any) -> None:
    """Raise `UserError` for settings under which Hydra would end before the first job. See `compose_sweep`.

    Sets up logging as Hydra will, but into no file.
    """
    from hydra.utils import get_object
    from omegaconf import open_dict, read_write

    composed = copy.deepcopy(composed)
    hydra = composed.hydra
    with read_write(composed), open_dict(composed):  # what the first job has
        hydra.runtime.output_dir, hydra.job.num, hydra.job.id = os.devnull, 0, "0"
    names = hydra.verbose if isinstance(hydra.verbose, Sequence) else [hydra.verbose]
    if not isinstance(hydra.verbose, bool | str) and not all(isinstance(name, str) for name in names):
        raise UserError(f"hydra.verbose = {hydra.verbose}: allowed: true, false, or names of loggers, [name1,name2]")
    with resolving(composed):
        for key in ("hydra_logging", "job_logging"):
            _require_logging(f"hydra.{key}", hydra[key])
    for name, callback in (hydra.callbacks or {}).items():
        target = callback.get("_target_") if isinstance(callback, Mapping) else None
        try:
            get_object(str(target))
        except Exception as error:  # of the module that is imported
            raise UserError(
                f"hydra.callbacks.{name} = {callback}: cannot be imported; allowed: {{_target_: package.Class}}"
            ) from error


def _require_logging(key: str, settings: Any) -> None:
    from hydra._internal.logging_config import configure_logging
    from omegaconf import OmegaConf

    if settings is None:
        return
    content: Any = OmegaConf.to_container(settings, resolve=True)
    for handler in (content.get("handlers") or {}).values():
        if isinstance(handler, dict) and "filename" in handler:
            handler["filename"] = os.devnull
    try:
        if content["root"] is not None:
            configure_logging(content)
    except Exception as error:  # whatever a handler of its own raises
        said = ": ".join(dict.fromkeys(str(each) for each in (error, error.__cause__) if each))
        raise UserError(
            f"{key}: cannot be set up: {said}; allowed: what Python's logging.config.dictConfig takes"
        ) from error
