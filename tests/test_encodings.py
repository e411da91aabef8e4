"""Nothing depends on the encoding of the locale: neither files, nor other programs, nor what is printed."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from project_copy import ROOT, clean_environment, clone_project, copy_project

from pipeline.core import exits

ASCII = {"LC_ALL": "C", "LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
_TEXT = {"read_text", "write_text", "open", "TemporaryFile", "NamedTemporaryFile", "fdopen", "makefile"}
_PROGRAMS = {"run", "Popen", "check_output", "check_call"}


def _depends_on_the_locale(call: ast.Call) -> bool:
    """What PLW1514 of ruff does not see: paths whose type it cannot tell, and the output of other programs."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg for keyword in call.keywords}
    if name in _PROGRAMS:
        return bool(keywords & {"text", "universal_newlines"}) and "encoding" not in keywords
    if name not in _TEXT or "encoding" in keywords:
        return False
    owner = getattr(getattr(call.func, "value", None), "id", "")
    if owner in {
        "os",
        "Image",
        "ArrayFile",
        "Dataset",
        "cls",
        "opener",
        "distribution",
    }:
        return False
    if name in {"read_text", "write_text"}:
        return isinstance(call.func, ast.Attribute)  # the functions of `core.files` are UTF-8
    modes = [a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)]
    return not any(isinstance(mode, str) and "b" in mode for mode in modes)


def test_every_text_has_its_encoding() -> None:
    found = []
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        found += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls if _depends_on_the_locale(call)]
    assert found == []


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", r"1 +- 2 -> \xe9 \u6f22 \udcff"),
        ("latin-1", "1 \u00b1 2 -> \u00e9 \\u6f22 \\udcff"),
        ("utf-8", "1 \u00b1 2 \u2192 \u00e9 \u6f22 \\udcff"),
    ],
)
def test_what_is_printed_fits_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    with exits.exit_codes():
        print("1 \u00b1 2 \u2192 \u00e9 \u6f22 \udcff", flush=True)
    assert written.getvalue().decode(encoding) == expected + "\n"


def _ascii(project: Path, module: str, *arguments: str, stream: int = subprocess.PIPE) -> tuple[int, str, str]:
    command = [sys.executable, "-m", module, *arguments]
    environment = clean_environment() | ASCII
    done = subprocess.run(command, cwd=project, env=environment, stdout=stream, stderr=stream, timeout=100, check=False)
    return done.returncode, done.stdout.decode("ascii"), done.stderr.decode("ascii")


def test_a_project_with_other_letters_composes_under_ascii(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "pr\u00f6jekt \u6f22")
    (project / "conf/data/caf\u00e9.yaml").write_text("defaults: [mnist_sample]\n# \u6f22\u5b57\n", encoding="utf-8")
    code, _, error = _ascii(project, "pipeline.config")
    assert (code, error) == (0, "")
    code, _, error = _ascii(project, "pipeline.config", "data.caf\u00e9=1")
    assert code == 2
    assert "Traceback" not in error
    assert "caf" in error


def test_doctor_and_the_list_of_commands_under_ascii(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "pr\u00f6jekt", store=False)
    with open(os.fsencode(project) + b"/pipeline/caf\xe9.py", "wb") as file:  # noqa: PTH123
        file.write(b"# \xff\n")
    code, output, error = _ascii(project, "pipeline.doctor")
    assert (code, error) == (0, "")
    assert "1 changed or new files" in output
    assert _ascii(project, "pipeline")[0] == 0


def test_the_page_about_the_data_under_ascii(tmp_path: Path) -> None:
    project = clone_project(tmp_path / "project")
    code, _, error = _ascii(project, "pipeline.describe")
    assert (code, error) == (0, "")
    assert "<html" in (project / "results/data/index.html").read_text(encoding="utf-8")
