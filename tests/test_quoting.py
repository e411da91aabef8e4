"""Values that Hydra does not take as they stand: the message says what to write, and that works."""

import subprocess
from operator import attrgetter

import pytest

from pipeline.config.compose import compose
from pipeline.config.hydra_compat import Source, value_of
from pipeline.config.quoting import advice, for_shell, quoted
from pipeline.core.errors import UserError
from pipeline.sweeps.plan import expand

REFUSED = [
    *(
        "it's",
        "a=b",
        "a#b",
        "a[b]",
        "a{b}",
        "a(b)",
        "é",
        "猫",
        'a"b',
        "x'y\"z",
        "a;b",
        "a&b",
        "~",
        "a!b",
        "a<b>",
        "a^b",
    ),
    *("a`b", "'", "a\\'b", "a,b", "$é", "a\\\\é"),
]
TAKEN = ["a b", "a:b", "a$b", "a%b", "a@b", "a?b*", "-x", "a+b", "a|b", "null", "1"]


def test_what_the_message_says_to_write_is_the_text_in_bash_and_hydra() -> None:
    written = []
    for text in REFUSED:
        assert "," in text or value_of(f"data.root=/data/{text}") is None  # a comma makes two values of it
        written.append(advice(f"++data.root=/data/{text}").partition("; for this text write ")[2])
    handed = subprocess.run(["bash", "-c", f"printf '%s\\0' {' '.join(written)}"], capture_output=True, check=True)
    for text, argument in zip(REFUSED, handed.stdout.decode().split("\0"), strict=False):
        assert argument.startswith("data.root='")
        assert value_of(argument) == f"/data/{text}"


@pytest.mark.parametrize("text", ["it's", "a,b", "é"])
@pytest.mark.parametrize("key", ["data.root", "tracking.experiment"])
def test_every_job_of_a_sweep_gets_the_text(key: str, text: str) -> None:
    overrides = ["data=folder", "data.root=/x", f"{key}={quoted(text)}", "framework=pytorch,tensorflow"]
    assert [attrgetter(key)(compose(job)) for job in expand(overrides, Source())] == [text, text]


def test_the_message_names_the_sign() -> None:
    with pytest.raises(
        UserError, match=r"data\.root=/data/it's: not key=value .*: \"'\" must be quoted; without quotes"
    ):
        compose(["data=folder", "data.root=/data/it's"])
    with pytest.raises(UserError, match=r"a comma stands between values.*for a list, key=\[value1,value2\].*add -m"):
        compose(["data=folder", "data.root=/data/a,b"])


@pytest.mark.parametrize("text", TAKEN)
def test_other_signs_need_no_quotes(text: str) -> None:
    assert value_of(f"data.root=/data/{text}") == value_of(f"data.root={quoted(f'/data/{text}')}") == f"/data/{text}"


def test_lists_are_quoted_for_the_shell_alone() -> None:
    assert advice("seeds=[0,").endswith("""quote such texts, and the whole for the shell: 'data.classes=["é","a,b"]'""")
    assert value_of('data.classes=["é","a,b"]') == ["é", "a,b"]


def test_a_dollar_with_braces_is_another_key() -> None:
    with pytest.raises(
        UserError, match=r"^data\.root: Interpolation key 'x' not found; \$\{\.\.\.\} stands for the value"
    ):
        compose(["data=folder", "data.root='/data/${x}'"])


def test_quotes_for_the_shell_are_double_where_that_is_enough() -> None:
    assert for_shell("a='b c'") == "\"a='b c'\""
