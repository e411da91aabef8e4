"""Compose `conf/` and overrides into a checked `Config`; write and read its snapshot, `params.yaml`."""

import copy
import difflib
import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ..core.errors import UserError
from ..core.files import write_text
from . import hydra_compat
from .hydra_compat import Source
from .messages_compat import choices, one_message
from .override_form_compat import require_form
from .pairs import require_pair
from .schema.keys import allowed_keys, bounds
from .schema.whole import Config

CONF = Path(__file__).resolve().parents[2] / "conf"
PARAMS = Path("params.yaml")
_PROJECT = Source()
_NO_NUMBER: Final = ("int_type", "int_from_float", "float_type", "finite_number")
"""Errors of pydantic that do not say in which range the number must be."""


def conf_digest() -> str:
    """Return the MD5 over the names and bytes of every YAML file below `conf/`, as 32 hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    for path in sorted(CONF.rglob("*.yaml")):
        if path.is_file():  # an editor's lock file is a dangling link
            digest.update(os.fsencode(path.relative_to(CONF)) + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def register() -> None:
    """Register the resolvers that `conf/` uses with OmegaConf; `dvc exp run` does so through a plugin of Hydra's."""
    OmegaConf.register_new_resolver("conf_digest", conf_digest, replace=True)


def compose(overrides: Sequence[str] = (), source: Source = _PROJECT) -> Config:
    """Compose `conf/` with Hydra overrides, and check the result.

    Raises `UserError` listing every problem, or naming a setting of Hydra's own, which only `pipeline.train` heeds.
    """
    _require_task(overrides)
    with _started(overrides, source) as hydra:
        return parse(task_part(hydra_compat.compose(hydra, source, _forced(overrides))))


def _require_task(overrides: Sequence[str]) -> None:
    if own := [override for override in overrides if re.match(r"[+~]*hydra\b[./@=]", override)]:
        raise UserError(f"{own[0]}: a setting of Hydra's own; only `python -m pipeline.train` runs within Hydra")


def compose_job(
    overrides: Sequence[str], source: Source = _PROJECT, number: int | None = None
) -> tuple[Config, Mapping[str, Any]]:
    """Compose one run, or job `number` of a sweep, as Hydra will; check it; return it with its folders.

    These are `run.dir`, or for a job `sweep.subdir`, resolved. Raises `UserError` listing every problem.
    """
    with _started(overrides, source) as hydra:
        try:
            composed = hydra_compat.compose(hydra, source, overrides, number=number)
        except Exception:
            parse(task_part(hydra_compat.compose(hydra, source, _forced(overrides))))  # if it can, it says more
            raise
    with readable_errors(overrides), hydra_compat.resolving(composed):
        key = "run.dir" if number is None else "sweep.subdir"
        return parse(task_part(composed)), {key: OmegaConf.select(composed, f"hydra.{key}")}


def task_part(composed: Any) -> Any:
    """Return the configuration without its node `hydra`, as Hydra hands it to the task function."""
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


def compose_sweep(overrides: Sequence[str], source: Source = _PROJECT) -> Any:
    """Compose what the jobs of a sweep share; swept keys keep their values of `conf/`. Raises `UserError`."""
    with _started(overrides, source) as hydra:
        try:
            return hydra_compat.compose_sweep(hydra, source, overrides)
        except Exception:  # the check of each job says more
            return hydra_compat.compose_sweep(hydra, source, _forced(overrides))


def first_job(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of one job of a sweep or a search: each key at its first value, and none of Hydra's own.

    Raises `UserError`, also for a setting of Hydra's that is none.
    """
    compose_sweep(overrides)
    with _started(overrides, _PROJECT) as hydra:
        task, _ = hydra_compat.split(overrides)
        fixed, swept = hydra_compat.spaces(hydra, task)
    return [*fixed, *(f"{each.key}={next(iter((*each.choices, *each.values)), each.low)}" for each in swept)]


@contextmanager
def _started(overrides: Sequence[str], source: Source) -> Iterator[Any]:
    """Yield a Hydra that can compose the source with these overrides. Raises `UserError`."""
    with readable_errors(overrides), warnings.catch_warnings(), hydra_compat.started(CONF, source) as hydra:
        warnings.filterwarnings("error", "provider=hydra.searchpath")  # a folder that is not there
        require_form(hydra, source, overrides)
        yield hydra


@contextmanager
def readable_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turn the errors of a composition into `UserError`."""
    from hydra.errors import HydraException

    register()
    try:
        yield
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, UserWarning) as error:
        raise UserError(one_message(error)) from error
    except UnicodeDecodeError as error:
        file = next((path for path in sorted(CONF.rglob("*.yaml")) if path.is_file() and not _is_text(path)), CONF)
        raise UserError(f"{file}: is not UTF-8: {error}; save it as UTF-8") from error
    except Exception as error:  # Hydra lets ValueError, TypeError, YAMLError and others through
        given = " with " + " ".join(overrides) if overrides else ""
        raise UserError(f"conf/{given}: cannot be composed: {one_message(error)}") from error


def _is_text(path: Path) -> bool:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def _forced(overrides: Sequence[str]) -> list[str]:
    """Return `++a.b=c` for `a.b=c`: the schema, not Hydra, refuses unknown keys, as it can list the allowed ones."""
    keys = (re.match(r"(?!hydra\b)\w[\w.]*(?==)", override) for override in overrides)
    return [
        f"++{override}" if key and not (CONF / key[0]).is_dir() else override
        for key, override in zip(keys, overrides, strict=True)
    ]


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a snapshot (`params.yaml`), apply `key=value` overrides, and check the result.

    Raises `UserError` naming the unreadable file, the malformed override, or every problem.
    """
    try:
        snapshot = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `python -m pipeline.config` composes it from conf/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(snapshot, DictConfig):
        raise UserError(f"{path}: is not a mapping of keys to values")
    _require_task(overrides)
    for override in overrides:
        require_pair(override)
        _refuse_choice(override, path)
    try:
        for override in overrides:
            _apply(snapshot, override)
        return parse(snapshot)
    except yaml.YAMLError as error:
        raise UserError(f"{' '.join(overrides)}: not key=value: {one_message(error)}") from error
    except OmegaConfBaseException as error:
        given = f" with {' '.join(overrides)}" if overrides else ""
        raise UserError(f"{path}{given}: {one_message(error)}") from error


def _refuse_choice(override: str, path: Path) -> None:
    """Raise `UserError` for `model=lenet5`: only the composition of conf/ knows what that is."""
    group, _, name = override.partition("=")
    if name in choices(group):
        first = ".".join((*group.split("/"), allowed_keys(group.split("/"))[0]))
        raise UserError(
            f"{override}: {path} is composed already; allowed: keys of it, as {first}, or {override} without --params"
        )


def _apply(snapshot: DictConfig, override: str) -> None:
    key, _, value = override.partition("=")
    try:
        OmegaConf.update(snapshot, key, OmegaConf.from_dotlist([f"value={value}"]).value, force_add=True)
    except (IndexError, ValueError) as error:
        raise UserError(f"{override}: no such place in a list; its entries are numbered from 0") from error


def parse(composed: Any) -> Config:
    """Resolve and check a configuration of OmegaConf's. Raises `UserError` listing every problem."""
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise UserError(one_message(error)) from error
    assert isinstance(values, dict)
    values.pop("hydra", None)
    missing = [key for key in sorted(OmegaConf.missing_keys(composed)) if not key.startswith("hydra.")]
    problems = [f"{key} = ???: a value is required" for key in missing]
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join([*problems, *_problems(error, values)])) from error
    if problems:
        raise UserError("\n".join(problems))
    return config


def text_of(config: Config) -> str:
    """Return the text of the snapshot: YAML in the schema's order, with every key, also those that have a default.

    DVC compares sections with `dvc.lock` by value, so a snapshot that leaves out a default looks changed to it.
    """
    header = '# Composed from conf/ by the `config` stage. Edit conf/ instead; see README, "Change something".\n'
    return header + yaml.safe_dump(config.model_dump(), sort_keys=False, default_flow_style=None, width=100)


def write(config: Config, path: Path = PARAMS) -> None:
    """Write the snapshot atomically."""
    write_text(path, text_of(config))


def _problems(error: ValidationError, values: Mapping[Any, Any]) -> Iterable[str]:
    """Yield a message for each key with a problem: the full key, its value, and what is allowed."""
    alternatives: dict[str, list[str]] = {}  # a value that may be of several types has a problem for each
    for problem in error.errors(include_url=False):
        key, given = _key(problem["loc"], values), problem["input"]
        if problem["type"] == "value_error":
            yield problem["msg"].removeprefix("Value error, ")
        elif problem["type"] == "missing":
            yield f"{key}: missing"
        elif problem["type"] == "union_tag_invalid":
            tag = str(problem["ctx"]["discriminator"]).strip("'")
            choice = _choice(problem["loc"])
            hint = f"; choose the whole section: {choice}" if choice else ""
            yield f"{key}.{tag} = {problem['ctx']['tag']!r}: allowed: {problem['ctx']['expected_tags']}{hint}"
        elif given != "???":  # `parse` has reported it
            alternatives.setdefault(f"{key} = {given!r}", []).append(_reason(problem, key))
    for pair, reasons in alternatives.items():
        first, *others = dict.fromkeys(reasons)
        yield f"{pair}: {' or '.join([first, *(other.removeprefix('input should be ') for other in others)])}"


def _reason(problem: Any, key: str) -> str:
    """Return what is wrong with one value, and what is allowed."""
    location, given = problem["loc"], problem["input"]
    if problem["type"] == "extra_forbidden":
        allowed = allowed_keys(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"unknown key{hint} (allowed: {', '.join(allowed)})"
    if problem["type"] == "list_type":
        return f"allowed: a list, in a shell '{key}=[{given}]'"
    if problem["type"] == "too_short":
        return f"allowed: a list of {problem['ctx']['min_length']} or more values"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        keys = ", ".join(f"{key}.{name}" for name in allowed_keys(location))
        return f"is a section; allowed: {_choice(location) or f'its keys, {keys}'}"
    several = f"; to try each value, -m {key}={','.join(map(str, given))}" if isinstance(given, list) else ""
    within = bounds(location) if problem["type"] in _NO_NUMBER else ""
    return f"{problem['msg'][0].lower()}{problem['msg'][1:]}{f', {within}' if within else ''}{several}"


def _choice(location: Sequence[int | str]) -> str:
    """Return how the section at `location` is chosen as a whole; empty if there is no choice."""
    group = "/".join(map(str, location))
    names = choices(group)
    return f"{group}={names[0]} (or {', '.join(names[1:])})" if len(names) > 1 else ""


def _key(location: tuple[int | str, ...], values: Any) -> str:
    """Return a location of pydantic's as `model.layers[0].filters`, without the tags of unions that it contains."""
    key, value = "", values
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(part, int):
            key += f"[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else None
        elif isinstance(value, Mapping) and (part in value or last):
            key += f".{part}" if key else part
            value = value.get(part)
    return key
