"""What the documentation names is there: links, paths, commands, keys with their defaults, what pictures show."""

import ast
import hashlib
import importlib.util
import re
import typing
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pipeline.config.compose import compose
from pipeline.config.schema import model as model_schema
from pipeline.config.schema.whole import Config
from pipeline.models.backend import Classifier

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pipeline"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(ROOT.glob("docs/*.md"))]
DRAWINGS = ROOT / "docs/architecture"
PAGE = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs-{page.name}"
)
MADE_BY_RUNS = {"results", "data", "outputs", "multirun", "journal", "checkpoints", "mlartifacts", "plots"}
HOLDERS = {path.name for path in ROOT.glob("*") if path.is_dir()} - MADE_BY_RUNS


def _prose(page: Path) -> str:
    """The text without blocks of code between fences."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


def _slugs(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"(?m)^#+ (.*)$", _prose(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _quoted(page: Path) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", _prose(page)))


@PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", _prose(page))
    dead = []
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _slugs(target)):
            dead.append(link)
    assert dead == []


@PAGE
def test_every_path_is_there(page: Path) -> None:
    """Whatever begins with a folder of this repository, or is a file at its root; `<...>` stands for anything."""
    named = {text for text in _quoted(page) if re.fullmatch(r"[\w./<>@*-]+", text)}
    paths = {text for text in named if text.split("/")[0] in HOLDERS and "/" in text}
    paths |= {text for text in named if re.fullmatch(r"\.?[\w.-]+\.(yaml|toml|lock|md)", text)}
    patterns = {path: re.sub(r"<[^>]*>", "*", path).rstrip("/") for path in paths if "<name>" not in path}
    assert sorted(path for path, pattern in patterns.items() if not list(ROOT.glob(pattern))) == []


@PAGE
def test_every_name_is_in_the_file_that_it_is_said_to_be_in(page: Path) -> None:
    said = re.findall(r"`(\w+)`\s+(?:in|of)\s+`((?:pipeline|tests)/[\w/]+\.py)`", _prose(page))
    assert [(name, path) for name, path in said if name not in (ROOT / path).read_text(encoding="utf-8")] == []


@PAGE
def test_every_command_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m (pipeline[\w.]*\w)", text))
    assert sorted(name for name in modules if importlib.util.find_spec(name) is None) == []
    scripts = set(re.findall(r"python (tests/[\w/]+\.py)", text))
    assert sorted(path for path in scripts if not (ROOT / path).exists()) == []
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    wanted = set(re.findall(r"(?m)(?:^    |`)make ([a-z]+)", text))
    assert wanted - targets == set()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_every_page_is_in_the_index_and_in_the_readme() -> None:
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    for index, folder in ((ROOT / "docs/README.md", ""), (ROOT / "README.md", "docs/")):
        assert {name for name in pages if f"]({folder}{name})" not in index.read_text(encoding="utf-8")} == set()


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a section and of those below it, with its full name."""
    for name, field in section.model_fields.items():
        inner = [] if name == "layers" else list(_sections(field.annotation))
        for one in inner:
            yield from _keys(one, f"{prefix}{name}.")
        if not inner:
            yield prefix + name


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _sections(argument)


def _documented() -> set[str]:
    return _quoted(ROOT / "docs/configuration.md") | _quoted(ROOT / "docs/data.md")


def test_every_key_of_the_configuration_is_explained() -> None:
    assert sorted(set(_keys(Config)) - _documented()) == []


def test_every_choice_of_every_group_is_named() -> None:
    choices = {path.stem for path in ROOT.glob("conf/*/**/[!_]*.yaml")} - {"default"}
    assert sorted(choices - _documented()) == []


def test_every_layer_is_explained_with_its_keys() -> None:
    rows = re.findall(r"(?m)^\| (`.*) \| (.*) \|$", (ROOT / "docs/configuration.md").read_text(encoding="utf-8"))
    explained = {
        name: set(re.findall(r"`(\w+)`", keys)) for names, keys in rows for name in re.findall(r"`(\w+)`", names)
    }
    for layer in _sections(model_schema.Layer):
        (kind,) = typing.get_args(layer.model_fields["type"].annotation)
        assert layer.model_fields.keys() - {"type"} <= explained[kind], kind
    assert set(typing.get_args(model_schema.Activation)) <= _documented()


@pytest.mark.parametrize("name", ["configuration", "data"])
def test_every_default_is_that_of_conf(name: str) -> None:
    text = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?m)^\| key \| default \| .*\n(?:\|.*\n)+", text)
    rows = [row for table in tables for row in re.findall(r"(?m)^\| `([\w.]+)` \| `([^`]*)` \|", table)]
    assert len(rows) >= 10
    whole = compose().model_dump()
    for key, default in rows:
        found: Any = reduce(lambda section, part: section[part], key.split("."), whole)
        said = yaml.safe_load(default)
        assert (float(said) if isinstance(found, float) else said) == found, key


def test_every_exit_code_is_explained() -> None:
    from pipeline.core import exits

    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    for code in (exits.FAILED, exits.MISTAKE, exits.BUSY, exits.INTERRUPTED, exits.TERMINATED):
        assert re.search(rf"(?m)^\| [\d, ]*\b{code}\b[\d, ]* \|", text), code


@pytest.mark.parametrize("source", sorted(DRAWINGS.glob("*.dot")), ids=lambda path: path.stem)
def test_every_picture_is_drawn_from_its_source_as_it_is(source: Path) -> None:
    noted = re.findall(r"<!-- source: (\w+) -->", source.with_suffix(".svg").read_text(encoding="utf-8"))
    assert noted == [hashlib.sha256(source.read_bytes()).hexdigest()], "run docs/architecture/render.sh"
    assert source.with_suffix(".svg").name in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def _drawn(name: str) -> set[tuple[str, str]]:
    return set(re.findall(r"(?m)^  (\w+) -> (\w+)", (DRAWINGS / f"{name}.dot").read_text(encoding="utf-8")))


def _reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Without those that follow from others; no circles."""
    after = {a: {d for c, d in edges if c == a} for a, _ in edges}

    def reach(node: str) -> set[str]:
        return {far for near in after.get(node, ()) for far in {near} | reach(near)}

    return {(a, b) for a, b in edges if not any(b in reach(other) for other in after[a] - {b})}


def test_the_picture_of_the_stages_is_that_of_dvc() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    (frameworks,) = (each["frameworks"] for each in pipeline["vars"])
    outputs, inputs = {}, {}
    for stage, content in pipeline["stages"].items():
        for item in frameworks if "matrix" in content else (None,):
            name = f"{stage}_{item}" if item else stage

            def named(entries: list[Any], item: str | None = item) -> set[str]:
                plain = [next(iter(each)) if isinstance(each, dict) else each for each in entries]
                return {each.replace("${item.framework}", item or "") for each in plain}

            outputs[name] = named([*content.get("outs", ()), *content.get("metrics", ())])
            inputs[name] = named(content["deps"])
    edges = {
        (a, b)
        for a, made in outputs.items()
        for b, used in inputs.items()
        if any(one == other or one.startswith(f"{other}/") for one in used for other in made)
    }
    assert _drawn("stages") == _reduced(edges) | {("config", "download")}


def test_the_picture_of_the_seam_has_its_methods() -> None:
    drawn = re.findall(r"(?:<br/>|\">)(\w+)\(", (DRAWINGS / "seam.dot").read_text(encoding="utf-8"))
    assert drawn == [name for name, value in vars(Classifier).items() if callable(value) and name[0] != "_"]


def test_the_picture_of_the_rooms_is_that_of_the_imports() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    edges = set()
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).parts
        own = parts[0] if len(parts) > 1 else "commands"
        edges |= {(own, room) for room in _imported(file, parts) & rooms - {own}}
    assert _drawn("rooms") == _reduced(edges)


def _imported(file: Path, parts: tuple[str, ...]) -> set[str]:
    """The first names below `pipeline` that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = ["pipeline", *parts[:-1]][: len(parts) + 1 - node.level] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            found |= {[*module, alias.name][1] for alias in node.names if module[0] == "pipeline"}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "pipeline" and len(name) > 1}
    return found
