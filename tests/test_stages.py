"""What `dvc.yaml` says of a stage is what its code does."""

import ast
import importlib
import shutil
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from pipeline.config import call as entry
from pipeline.config.compose import compose, write
from pipeline.core import fingerprint
from pipeline.core.frameworks import FRAMEWORKS

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PACKAGE = ROOT / "pipeline"


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
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("pipeline.") and _module_file(name)}


def _listed(patterns: Iterable[str]) -> set[Path]:
    """The files that these patterns name, `{framework}` standing for any."""
    found = {path for pattern in patterns for path in PACKAGE.glob(pattern.replace("{framework}", "*/"))}
    files = {file for path in found for file in ([path] if path.is_file() else path.rglob("*.py"))}
    return {file for file in files if file.suffix == ".py"}


def _closure(module: str, stop: set[Path]) -> set[Path]:
    """Every file that a module imports, and what these import, but for what those in `stop` import."""
    todo, seen = {module}, set()
    while todo:
        name = todo.pop()
        seen.add(name)
        file = _module_file(name)
        assert file is not None
        if file not in stop:
            todo |= _imports(file) - seen
            todo |= {".".join(name.split(".")[:i]) for i in range(2, name.count(".") + 1)} - seen
    files = {_module_file(name) for name in seen}
    return {file for file in files if file and not _only_a_docstring(file)}


def _only_a_docstring(file: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(file.read_text(encoding="utf-8")).body)


INERT = _listed(fingerprint.INERT)
BACKENDS = ("trace", "train", "evaluate", "export", "speed")


def _roots(stage: str) -> list[str]:
    """The command, and what it opens by name."""
    main = "pipeline.config.__main__" if stage == "config" else f"pipeline.{stage}"
    processes = ["pipeline.exports.process"] if stage == "export" else []
    providers = ["bundled", "torchvision", "tfds", "folder"] if stage in ("download", "prepare") else []
    backends = [f.backend.partition(":")[0] for f in FRAMEWORKS.values()] if stage in BACKENDS else []
    return [main, *(f"pipeline.data.providers.{name}_provider" for name in providers), *backends, *processes]


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_of_a_stage_is_everything_that_it_imports_and_nothing_else(stage: str) -> None:
    """Or DVC, a checkpoint or a sweep would take old results for new ones, or compute for nothing."""
    imported = {file for root in _roots(stage) for file in _closure(root, INERT)} - INERT
    listed = {file for file in _listed(fingerprint.CODE[stage]) if not _only_a_docstring(file)}
    assert sorted(str(file.relative_to(ROOT)) for file in imported - listed) == []
    rooms = _listed(pattern for pattern in fingerprint.CODE[stage] if (PACKAGE / pattern).is_dir())
    unused = listed - imported - INERT - rooms
    assert sorted(str(file.relative_to(ROOT)) for file in unused) == []


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_is_told_of_the_code_that_the_fingerprint_names(stage: str) -> None:
    wanted = {f"pipeline/{pattern}".replace("{framework}", "${item.framework}") for pattern in fingerprint.CODE[stage]}
    assert {dep for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")} == wanted
    assert all(_listed([pattern]) or (PACKAGE / pattern).exists() for pattern in fingerprint.CODE[stage])


@pytest.mark.parametrize(
    "edited",
    ["reports/figures/curves.py", "reports/html.py", "tracking/delivery.py", "core/errors.py", "core/progress.py"],
)
def test_an_edit_of_what_people_see_trains_nothing_again(edited: str) -> None:
    again = {stage for stage in STAGES if PACKAGE / edited in _listed(fingerprint.CODE[stage])}
    assert not again & {"download", "prepare", "trace", "train", "speed"}


def test_the_key_of_a_job_is_of_everything_that_makes_its_results_and_of_no_figure() -> None:
    backends = [framework.backend.partition(":")[0] for framework in FRAMEWORKS.values()]
    providers = [f"pipeline.data.providers.{name}_provider" for name in ("bundled", "torchvision", "tfds", "folder")]
    reports = set((PACKAGE / "reports").rglob("*.py"))
    stop = INERT | reports
    imported = {file for root in ("pipeline.sweeps.job", *backends, *providers) for file in _closure(root, stop)} - stop
    listed = {file for file in _listed(fingerprint.CODE["job"]) if not _only_a_docstring(file)}
    assert sorted(str(file.relative_to(ROOT)) for file in imported - listed) == ["pipeline/sweeps/cache.py"]
    assert not listed & reports


def test_what_makes_results_is_in_the_key_of_a_job_that_is_done() -> None:
    """Each of these has once been edited while a sweep went on to say that all was done."""
    files = {str(file.relative_to(PACKAGE)) for file in _listed(fingerprint.CODE["job"])}
    assert files >= {
        *(
            "evaluation/metrics.py",
            "evaluation/predictions.py",
            "data/dataset.py",
            "data/array_file.py",
            "data/build.py",
        ),
        *("config/schema/model.py", "config/schema/train.py", "models/pytorch/network.py", "training/loop.py"),
    }


def test_comments_and_docstrings_are_no_part_of_the_code_s_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "pipeline"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)
    file = copy / "models/dropout.py"

    def digest(text: str) -> str:
        file.write_text(text)
        fingerprint.of_code.cache_clear()
        return fingerprint.of_code("train", framework="pytorch")

    source = file.read_text()
    before = digest(source)
    assert digest(source.replace('"""', '"""Of another kind. ', 1) + "# a comment\n") == before
    assert digest(source + "X = 1\n") != before
    fingerprint.of_code.cache_clear()


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
