"""How a value that Hydra does not take as it stands is quoted: once for Hydra, and the whole for the shell."""

import re
import shlex

from . import hydra_compat

_OVERRIDE = re.compile(r"(\+{0,2}[\w.@/:-]+)=(.*)", re.DOTALL)


def advice(override: str) -> str:
    """Return what to write in place of a `key=value` that Hydra does not take, as the end of a message."""
    text = "without quotes, a value holds letters from a to z, digits, and / \\ : . + - $ % * @ ? | only"
    match = _OVERRIDE.fullmatch(override.removeprefix("++"))
    if not match or match[2].startswith(("[", "{")):
        return f'{text}; in a list quote such texts, and the whole for the shell: \'data.classes=["é","a,b"]\''
    key, value = match.groups()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    written = f"{key}={quoted(value)}"
    if hydra_compat.value_of(written) != value:
        return text
    return f"{text}; for this text write {for_shell(written)}"


def quoted(value: str) -> str:
    """Quote a text for Hydra: a backslash before an inner quote, and two for each backslash before a quote.

    https://hydra.cc/docs/advanced/override_grammar/basic/#quoted-values
    """
    inner = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"'{inner}'"


def for_shell(argument: str) -> str:
    """Quote an argument for a shell: in double quotes if that is enough, as they show an inner quote as it is."""
    if re.search(r'[$`"!\n]|\\[\\\n]', argument):
        return shlex.quote(argument)
    return f'"{argument}"'
