"""How many planted faults do the tests catch? `python tests/mutants.py [module ...]`.

Each fault is one small change of one module, in a clone of this repository: another comparison, operator, constant or
condition, a call, a keyword or a returned value left out. It is caught where one of the module's tests fails.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
TESTS = {
    "comparison/verdict": ("test_verdict.py", "test_verdict_simulated.py"),
    "comparison/paired_tests": ("test_verdict.py", "test_verdict_simulated.py"),
    "evaluation/metrics": ("test_metrics.py",),
    "data/plan": ("test_plan.py",),
    "tracking/journal": ("test_journal_files.py",),
    "tracking/lines": ("test_journal_files.py",),
    "training/checkpoint": ("test_checkpoint.py", "test_security.py"),
    "core/turns": ("test_turns.py",),
}
"""Of each module, what is quick first."""
_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult},
}
_SECONDS = 120
_PRELOADED = (
    *(
        "numpy",
        "scipy.stats",
        "scipy.optimize",
        "pytest",
        "_pytest.assertion.rewrite",
        "mlflow",
        "hypothesis.strategies",
    ),
    *(
        "hypothesis.strategies",
        "mlflow.store.tracking.sqlalchemy_store",
        "statsmodels.stats.weightstats",
        "hydra.main",
        "pydantic",
        "PIL.Image",
    ),
)


def faults(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, what was changed, and the whole source with it."""
    tree = ast.parse(source)
    count = sum(1 for _ in _sites(tree))
    for number in range(count):
        changed = copy.deepcopy(tree)
        line, what, apply = next(itertools.islice(_sites(changed), number, None))
        apply()
        yield line, what, ast.unparse(ast.fix_missing_locations(changed))


def _sites(tree: ast.AST):
    for node in _code(tree):
        line = getattr(node, "lineno", 0)
        op = node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)
        if type(op) in _SWAPS:
            other = _SWAPS[type(op)]()
            name, value = ("ops", [other, *node.ops[1:]]) if isinstance(node, ast.Compare) else ("op", other)
            yield line, f"{ast.unparse(node)}: {type(other).__name__}", _assign(node, name, value)
        match node:
            case ast.Constant(value=bool(value)):
                yield line, f"{value}: {not value}", _assign(node, "value", not value)
            case ast.Constant(value=int(value) | float(value)):
                yield line, f"{value}: {value + 1}", _assign(node, "value", value + 1)
            case ast.Constant(value=str(value)):
                yield line, f"{value!r}: another", _assign(node, "value", value + "~")
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                yield line, f"if {ast.unparse(test)}: not", _assign(node, "test", ast.UnaryOp(ast.Not(), test))
            case ast.UnaryOp(op=ast.USub()):
                yield line, f"{ast.unparse(node)}: +", _assign(node, "op", ast.UAdd())
            case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
                yield line, f"return {ast.unparse(value)}: None", _assign(node, "value", ast.Constant(None))
            case ast.Expr(value=ast.Call()):
                yield line, f"{ast.unparse(node)}: left out", _assign(node, "value", ast.Constant(None))
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                yield line, f"{ast.unparse(node)}: without {keyword.arg}", _without(node, keyword)


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations, docstrings and formats of messages."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "format_spec"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                continue
            if isinstance(node, ast.AST):
                yield node
                yield from _code(node)


def _assign(node: ast.AST, name: str, value: object):
    return lambda: setattr(node, name, value)


def _without(node: ast.Call, keyword: ast.keyword):
    return lambda: node.keywords.remove(keyword)


def caught(clone: Path, module: str, source: str) -> bool:
    """Whether a test of the module fails."""
    path = clone / "pipeline" / f"{module}.py"
    path.write_text(source)
    pid = os.fork()
    if not pid:
        os.setsid()
        os.chdir(clone)
        sys.path[:0] = [str(clone), str(clone / "tests")]
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        import pytest

        code = 1
        with contextlib.suppress(BaseException):
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in TESTS[module])])
        os._exit(int(code))
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def main() -> None:
    """Print the share that is caught, module by module, and each fault that is not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    modules = parser.parse_args().modules
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    for name in _PRELOADED:
        importlib.import_module(name)
    clones: SimpleQueue[Path] = SimpleQueue()
    count = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            clone = Path(folder) / str(number)
            subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
            clones.put(clone)
        for module in modules:
            source = (ROOT / "pipeline" / f"{module}.py").read_text()

            def check(fault: tuple[int, str, str], module: str = module, source: str = source) -> bool:
                clone = clones.get()
                try:
                    return caught(clone, module, fault[2])
                finally:
                    (clone / "pipeline" / f"{module}.py").write_text(source)
                    clones.put(clone)

            if check((0, "", source)):
                raise SystemExit(f"{module}: its tests fail as it is")
            planted = list(faults(source))
            with ThreadPoolExecutor(count) as pool:
                found = list(pool.map(check, planted))
            for (line, what, _), is_caught in zip(planted, found, strict=True):
                if not is_caught:
                    print(f"not caught: {module}.py:{line}: {what}")
            print(f"{module}: {sum(found)} of {len(found)} caught, {sum(found) / len(found):.1%}", flush=True)


if __name__ == "__main__":
    main()
