"""Refuse overrides that cannot mean anything, before Hydra composes with them (its parser's tree, seen in 1.3.8).

tests/test_messages.py holds each refusal. Importing Hydra takes a while, so the functions import it, not this module.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..core.errors import UserError
from . import quoting
from .hydra_compat import Source
from .pairs import LISTED, one_line, pair, require_pair, without_hidden

CONF: Final = Path(__file__).resolve().parents[2] / "conf"
_FUNCTIONS: Final = {
    "choice": "choice(1,2,3)",
    "range": "range(start,stop,step), with a step other than 0",
    "interval": "1,2,3, choice, range or glob: an interval has no single values",
    "glob": "glob(*) or glob([a*,b*],exclude=c*), for a group such as model",
    "shuffle": "shuffle(1,2,3) or shuffle(range(1,4))",
    "sort": "sort(3,1,2) or sort(3,1,2,reverse=true)",
    "tag": "tag(name,choice(1,2))",
    **{name: f"{name}(value), with a value that is one" for name in ("bool", "float", "int", "str")},
}
"""How each function of Hydra's is called: https://hydra.cc/docs/advanced/override_grammar/extended/"""


def require_form(hydra: Any, source: Source, overrides: Sequence[str]) -> None:
    """Raise `UserError` for a primary configuration that is not there, and for an override that cannot mean anything.

    Hydra's own errors for these name neither key nor value, or not what is allowed.
    """
    _require_name(hydra, source)
    for given in overrides:
        parsed = _parsed(given)
        key, package = parsed.key_or_group, parsed.package
        if not key or package == "":
            raise UserError(f"{given}: has no {'package after @' if key else 'key'}; allowed: key=value; {LISTED}")
        if key == "hydra" and not parsed.is_delete():
            raise UserError(f"{pair(given)}: allowed: keys below it, as in hydra.run.dir=outputs/mine")
        if parsed.is_delete():
            _require_deletable(given, key)
        elif parsed.is_range_sweep() and not parsed.value().step:
            raise UserError(f"{pair(given)}: has the step 0; allowed: {_FUNCTIONS['range']}")
        elif options := _options(hydra, key):
            _require_choice(given, parsed, options)


def _require_choice(given: str, parsed: Any, options: Sequence[str]) -> None:
    """Raise `UserError` for what is no name of one of the `options` of a group.

    Hydra lays the several of a list above each other. Where they are alternatives, as networks are, that is none.
    """
    value = parsed.value()
    key = parsed.key_or_group
    alternatives = len(options) > 1 and key != "experiment" and (CONF / key).is_dir()
    for each in getattr(value, "list", [value]):
        if isinstance(each, list) and len(each) > 1 and alternatives:
            tried = f"to try each, -m {key}={','.join(map(str, each))}"
            raise UserError(f"{pair(given)}: one at a time; allowed: {', '.join(options)}; {tried}")
    if not (parsed.is_sweep_override() or _are_names(value)):
        raise UserError(f"{pair(given)}: is no name; allowed: {', '.join(options)}")


def _require_name(hydra: Any, source: Source) -> None:
    name = source.name.removesuffix(".yaml").removesuffix(".yml")
    own = source.directory and any((source.directory / f"{name}{end}").is_file() for end in (".yaml", ".yml"))
    allowed = without_hidden(hydra.config_loader.get_group_options(""))
    if not own and name not in allowed:
        place = f", or one of {source.directory}" if source.directory else ", or one of your own with --config-dir"
        raise UserError(f"--config-name = {source.name!r}: unknown; allowed: {', '.join(allowed)}{place}")


def _parsed(given: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides([given])[0]
    except OverrideParseException as error:
        require_pair(given)
        raise UserError(unparsed(given, error.message)) from error


def unparsed(given: str, message: str) -> str:
    """Say what Hydra's grammar does not take of the value of an override."""
    called = re.search(r"\w+ while evaluating '(\w+)(.*)': (.*)", message, re.DOTALL)
    if called and called[1] in _FUNCTIONS:
        reason = one_line(called[3].partition("\nSee ")[0])
        return f"{pair(given)}: {called[1]}: {reason}; allowed: {_FUNCTIONS[called[1]]}"
    if called:
        functions = ", ".join(_FUNCTIONS)
        return f"{pair(given)}: no function {called[1]}; allowed: {functions}; {quoting.advice(given)}"
    return f"{given}: not key=value as Hydra reads it: {reason_of(given, message)}; {quoting.advice(given)}"


def reason_of(override: str, message: str) -> str:
    """Return what Hydra's parser did not take of an override, from its message on several lines.

    The lexer's message has an arrow below the sign; that sign is named. Names of the grammar's tokens are left out.
    """
    lexer = "LexerNoViableAltException: "
    lines = [line for line in message.splitlines() if not line.startswith(("Error parsing", "See "))]
    arrow = next((len(line) - 1 for line in lines if line.strip() == "^"), -1) - len(lexer)
    if lines and lines[0].startswith(lexer) and 0 <= arrow < len(override):
        return f"{override[arrow]!r} must be quoted"
    said = " ".join(lines)
    if "'<EOF>'" in said:
        return "ends too early: a value, a bracket or a quote is missing"
    if found := re.match(r"(?:extraneous|mismatched) input '(.*?)' expecting", said, re.DOTALL):
        return f"{found[1]!r} is not expected there"
    if found := re.match(r"no viable alternative at input '(.*)'", said, re.DOTALL):
        return f"{found[1]!r} is not complete, or must be quoted"
    return said


def _require_deletable(given: str, key: str) -> None:
    """Raise `UserError` for `~key` of a key that must have a value, which are all but options and what is Hydra's."""
    top = re.split(r"[./]", key)[0]
    optional = key == "experiment" or key.startswith("data.options.")
    if (CONF / f"{top}").is_dir() and not optional:
        raise UserError(f"{given}: {key} cannot be left out: every key needs a value; allowed: {key}=value")


def _options(hydra: Any, group: str) -> list[str]:
    """Return the choices of a group of configurations; empty if there is no such group."""
    return without_hidden(hydra.config_loader.get_group_options(group)) if group else []


def _are_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))
