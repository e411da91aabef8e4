"""Say in one line what Hydra's and OmegaConf's errors mean, from their messages (seen in Hydra 1.3.8).

tests/test_messages.py holds each message. Importing Hydra takes a while, so the functions import it, not this module.
"""

import re
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

from . import quoting
from .override_form_compat import CONF, unparsed
from .pairs import LISTED, one_line, pair, without_hidden
from .schema.keys import allowed_keys


def one_message(error: Exception) -> str:
    """Return the message of a Hydra or OmegaConf error and of its cause, in one line, without advice to developers."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import InterpolationResolutionError

    if isinstance(error, OverrideParseException):
        return unparsed(error.override.removeprefix("++"), error.message)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group} = {choice!r}: unknown; allowed: {', '.join(without_hidden(error.options))}"
    if isinstance(error, InterpolationResolutionError) and error.full_key:
        reason = str(error).splitlines()[0]
        return f"{error.full_key}: {reason}; ${{...}} stands for the value of another key, also within quotes"
    texts = [str(error), str(error.__cause__)] if error.__cause__ else [str(error)]
    lines = [line.strip() for text in texts for line in text.split("Config search path:")[0].splitlines()]
    noise = ("Set the environment variable HYDRA_FULL_ERROR", "full_key:", "object_type=", "reference_type=")
    said = one_line(" ".join(dict.fromkeys(line for line in lines if line and not line.startswith(noise))))
    if isinstance(error, KeyError):
        return f"no such key or variable: {said}"
    said = said.replace("'++", "'").replace("override ++", "override ")
    found = ((tell, re.match(pattern, said)) for pattern, tell in _MESSAGES)
    return next((tell(match) for tell, match in found if match), said)


def _ambiguous(found: re.Match[str]) -> str:
    if found[1].startswith("hydra"):
        return f"{pair(found[1])}: stands for several values; allowed: one value"
    advice = f"{quoting.advice(found[1])}; for a list, key=[value1,value2]; to try each value, add -m"
    return f"{found[1]}: a comma stands between values; {advice}"


def _unmerged(found: re.Match[str]) -> str:
    key, _, _ = found[1].partition("=")
    reason = re.sub(r"^field '.*' is not Optional", "needs a value", found[2])
    kind = _kind_of(key) or next((words for name, words in _CONVERTED.items() if f"converted to {name}" in reason), "")
    return f"{pair(found[1])}: {reason}" + (f"; allowed: {kind}" if kind else "")


def _unknown(found: re.Match[str]) -> str:
    key, given, reason = found[1], found[2], found[3] or ""
    if "/" in key or "@" in key:
        return _no_group(key)
    if inner := re.search(r"Key '(.*)' is not in struct", reason):
        if _kind_of(key):  # of Hydra's, a mapping that takes any key
            return f"{pair(given)}: has no key {inner[1]}; allowed: +{key}.{inner[1]}=value"
        key = key if key.endswith(inner[1]) else f"{key}.{inner[1]}"
    if key.startswith("hydra.launcher."):
        others = ", ".join(_choices_of_launchers())
        return f"{key}: the launcher that is chosen has no such key; allowed: with another, hydra/launcher={others}"
    listed = LISTED.replace("--cfg job", "--cfg hydra") if key.startswith("hydra.") else LISTED
    return f"{key}: unknown key{_allowed_below(key)}; {listed}"


def _no_group(given: str) -> str:
    group = given.partition("@")[0]
    return f"{given}: no such group to choose in conf/; allowed: {', '.join(_groups(group))}"


def _groups(like: str) -> list[str]:
    """Return the groups of `conf/`, or those of Hydra's for a name that begins with `hydra/`."""
    if not like.startswith("hydra/"):
        return sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir())
    import hydra.conf

    folders = (Path(str(hydra.conf.__file__)).parent / "hydra").iterdir()
    return sorted(f"hydra/{path.name}" for path in folders if path.is_dir() and not path.name.startswith("_"))


def _section_of(key: str) -> Any:
    """Return the node of Hydra's schema that holds a key such as `hydra.run.dir`; None if there is none."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
    from hydra.conf import HydraConf
    from omegaconf import DictConfig, OmegaConf

    if not key.startswith("hydra."):
        return None
    schema = OmegaConf.structured(HydraConf)
    schema.sweeper = BasicSweeperConf
    parent = key.removeprefix("hydra.").rpartition(".")[0]
    try:
        section = OmegaConf.select(schema, parent) if parent else schema
    except Exception:  # a key in what is no mapping
        return None
    return section if isinstance(section, DictConfig) else None


def _allowed_below(key: str) -> str:
    *parents, _ = key.split(".")
    names = list(_section_of(key) or ()) if parents[:1] == ["hydra"] else allowed_keys(parents)
    return f"; allowed: {', '.join('.'.join([*parents, str(name)]) for name in names)}" if names else ""


def _kind_of(key: str) -> str:
    """Return what kind of value a key of Hydra's takes, in words; empty if that is not known."""
    section, name = _section_of(key), key.rpartition(".")[2]
    if section is None or name not in section.keys():  # noqa: SIM118 (without those that have no value)
        return ""
    node = section._get_node(name)
    kind, optional = node._metadata.ref_type, " or null" if node._metadata.optional else ""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"{', '.join(kind.__members__)}{optional}"
    words = {bool: "true or false", int: "a whole number", str: "a text"}.get(kind, "")
    if not words and hasattr(node, "keys"):
        words = f"its keys, {', '.join(f'{key}.{each}' for each in node)}" if len(node) else "{name: value}"
    elif not words and hasattr(node, "append"):
        words = "a list, [value1,value2]"
    return f"{words}{optional}" if words else ""


_MESSAGES: Final[Sequence[tuple[str, Callable[[re.Match[str]], str]]]] = (
    (r"Ambiguous value for argument '(.*?)' 1\. ", _ambiguous),
    (r"Error merging override (\S+?=.*?) ((?:field|Cannot|Invalid|Value|ListConfig|Unexpected) .*)", _unmerged),
    (r"Error merging override (\S+?=\S*) (?!.* does not support deletion)(.*)", _unmerged),
    (r"Could not override '(.*?)'\.(?: Did you mean .*?\?)? To append to your .* use \+(\S*) ?(.*)", _unknown),
    (r"Could not override '(.*?)'\. No match", lambda found: _no_group(found[1])),
    (r"Override (.*) looks like a config group override", lambda found: _no_group(found[1].partition("=")[0])),
    (
        r"Error merging override ~(\S+) .* does not support deletion",
        lambda found: f"~{found[1]}: {found[1]} cannot be left out; allowed: {found[1]}=value",
    ),
    (
        r"Could not delete from config\. '(.*)' does not exist",
        lambda found: f"~{found[1]}: no such key{_allowed_below(found[1])}; {LISTED}",
    ),
    (
        r"Could not delete from config\. The value of '(.*)' is (.*) and not (.*)\.",
        lambda found: f"~{found[1]}={found[3]}: the value is {found[2]}, so nothing is left out; allowed: ~{found[1]}",
    ),
    (
        r"Could not delete '(.*)'\. No match",
        lambda found: f"~{found[1]}: is not chosen, so there is nothing to leave out; {LISTED}",
    ),
    (
        r"Could not append to config\. An item is already at '.*'\. Either remove \+ prefix: '(.*?)' Or add",
        lambda found: f"+{found[1]}: the key is there already; allowed: {found[1]}",
    ),
    (
        r"Multiple values for (.*)\. To override a value use 'override .*: (.*)'",
        lambda found: f"+{found[1]}={found[2]}: {found[1]} is chosen already; allowed: {found[1]}={found[2]}",
    ),
    (
        r"(.*) appears more than once in the final defaults list",
        lambda found: f"+{found[1]}: {found[1]} is chosen already; allowed: {found[1]}=name",
    ),
    (
        r"Sweep parameters '(.*)' requires --multirun",
        lambda found: (
            f"{pair(found[1])}: stands for several values; allowed: one value"
            + ("" if found[1].startswith("hydra") else "; to try each value, add -m")
        ),
    ),
    (
        r"(?:In '.*': )?Could not load '(.*)/(.*)'\.",
        lambda found: f"{found[1]} = {found[2]!r}: unknown; allowed: {', '.join(choices(found[1]))}",
    ),
    (
        r"hydra\.searchpath must be a list of strings\. Got: (.*)",
        lambda found: f"hydra.searchpath = {found[1]}: allowed: a list of folders, [file:///folder]",
    ),
    (
        r"provider=hydra\.searchpath in .*?, path=(.*) is not available",
        lambda found: f"hydra.searchpath = {found[1]}: no such folder; allowed: a list of folders, [file:///folder]",
    ),
    (
        r"package '(.*)' not found in config",
        lambda found: f"--package = {found[1]}: no such section; allowed: {', '.join(allowed_keys(()))}",
    ),
)
"""Messages of Hydra's on one line, and how they are told."""


_CONVERTED: Final = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
"""Words for a type in OmegaConf's `could not be converted to ...`."""


def _choices_of_launchers() -> list[str]:
    from hydra.core.config_store import ConfigStore

    found = without_hidden(ConfigStore.instance().list("hydra/launcher"))
    return sorted(name.removesuffix(".yaml") for name in found if name != "basic.yaml")


def choices(group: str) -> list[str]:
    """Return the names that a group of `conf/` has to choose from."""
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))
