"""What `dvc.yaml` says of a stage is what its code does."""

import ast
import importlib
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from pipeline.config import call as entry
from pipeline.config.compose import compose, write

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DOORS = {f"pipeline.models.{framework}" for framework in ("tensorflow", "pytorch")}


def _module_file(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def _imports(file: Path) -> set[str]:
    """The modules of this project that a file imports, anywhere in it."""
    package = list(file.relative_to(ROOT).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("pipeline.") and _module_file(name)}


def _closure(module: str) -> set[Path]:
    todo, seen = {module}, set()
    while todo:
        name = todo.pop()
        seen.add(name)
        file = _module_file(name)
        assert file is not None
        todo |= _imports(file) - seen
        todo |= {".".join(name.split(".")[:i]) for i in range(2, name.count(".") + 1)} - seen
    files = {_module_file(name) for name in seen}
    return {file for file in files if file and not _only_a_docstring(file)}


def _only_a_docstring(file: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(file.read_text()).body)


def _covered(file: Path, deps: list[str]) -> bool:
    name = file.relative_to(ROOT).as_posix()
    return any(name == dep or name.startswith(f"{dep}/") for dep in deps)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_it_imports(stage: str) -> None:
    main = "pipeline.config.__main__" if stage == "config" else f"pipeline.{stage}"
    missing = [str(f.relative_to(ROOT)) for f in _closure(main) if not _covered(f, STAGES[stage]["deps"])]
    assert not missing


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_modules_that_are_opened_by_name_import(stage: str) -> None:
    deps = [dep.replace("${item.framework}", "*") for dep in STAGES[stage]["deps"]]
    opened = [file for dep in deps for folder in ROOT.glob(dep) for file in folder.glob("**/*.py")]
    imported = {_module_file(name) for file in opened for name in _imports(file)} - {None}
    wanted = {file for file in imported if file and not _only_a_docstring(file)}
    covered = [*STAGES[stage]["deps"], *(str(folder.relative_to(ROOT)) for dep in deps for folder in ROOT.glob(dep))]
    assert sorted(str(file.relative_to(ROOT)) for file in wanted if not _covered(file, covered)) == []


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_stage_of_one_framework_depends_on_its_own_door_only(stage: str) -> None:
    assert "pipeline/models/${item.framework}" in STAGES[stage]["deps"]
    assert "pipeline/models" not in STAGES[stage]["deps"]
    registry = importlib.import_module("pipeline.models.classifier").DOORS
    assert {module for module, _ in registry.values()} == DOORS


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "config"])
def test_a_stage_can_read_the_sections_that_it_lists_and_no_others(stage: str, tmp_path: Path) -> None:
    """DVC runs it again where one of these changes, and only there."""
    importlib.import_module(f"pipeline.{stage}")
    whole = compose()
    write(whole, tmp_path / "params.yaml")
    read = entry.parse_call(stage, ["--params", str(tmp_path / "params.yaml")]).config
    listed = STAGES[stage]["params"]
    for section in listed:
        assert attrgetter(section)(read) == attrgetter(section)(whole)
    others = set(type(whole).model_fields) - {name.split(".")[0] for name in listed} - {"framework"}
    others |= {f"{name.split('.')[0]}.margin" for name in listed if "." in name}
    assert len(others) >= 6
    for section in others:
        with pytest.raises(AttributeError, match=f"the stage {stage} reads the section {section}, "):
            attrgetter(section)(read)
    assert ("${item.framework}" in STAGES[stage].get("cmd", "")) == ("framework" in entry.sections_of(stage))


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "config"])
def test_a_command_is_run_as_a_module_of_the_stage_s_name(stage: str) -> None:
    assert STAGES[stage]["cmd"].split()[:6] == ["exec", "python", "-m", f"pipeline.{stage}", "--params", "params.yaml"]


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "pipeline").rglob("*.py")))
def test_mlflow_and_the_frameworks_are_imported_behind_their_doors_only(module: str) -> None:
    owners = {"mlflow": "tracking", "tensorflow": "tensorflow", "keras": "tensorflow", "torch": "pytorch"}
    for file in (ROOT / "pipeline").rglob(f"{module}.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                owner = owners.get(name.split(".")[0])
                assert owner is None or owner in file.parts, f"{file}: import {name}"
