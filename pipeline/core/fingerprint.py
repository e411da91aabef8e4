"""Digests of values, code and package versions: every key that decides whether a result can be reused.

`CODE` names, for each DVC stage, the code that can change its results or the files it writes. `dvc.yaml` lists the same
files; tests/test_stages.py compares the two, and compares each set with what its modules import. Checkpoints, finished
jobs of a sweep and the cache of prepared data are keyed by it.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from . import frameworks

PACKAGE: Final = Path(__file__).parents[1]
"""The folder of the package `pipeline`."""


def _below(room: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{room}/{name}" for name in names)


_FETCHED: Final = (
    *_below("core", "files.py", "records.py"),
    *_below("config/schema", "section.py", "data.py"),
    *_below("data", "downloader.py", "idx.py", "images.py", "inventory.py", "providers", "remarks.py"),
)
_NETWORK: Final = (
    *_below("core", "files.py", "records.py"),
    *_below("config/schema", "section.py", "model.py", "train.py"),
    *_below("data", "array_file.py", "dataset.py", "plan.py", "remarks.py"),
    *_below("models", "architecture.py", "backend.py", "share.py"),
)
_BACKEND: Final = (*_NETWORK, "core/machine.py", *_below("models", "augmentation.py", "dropout.py", "{framework}"))
_RANKS: Final = _below("ranks", "classifier.py", "packing.py")
_MANIFEST: Final = ("core/machine.py", "models/manifest.py")
_EQUALITY: Final = (
    *_RANKS,
    *_below("config/schema", "parity.py", "trace.py"),
    *_below("equality", "fairness.py", "levels.py", "trace.py"),
)
_EVALUATED: Final = (
    *_BACKEND,
    "config/schema/evaluate.py",
    "data/loader.py",
    *_below("evaluation", "latency.py", "metrics.py", "predictions.py", "result_files.py", "summary.py"),
)
_PREPARED: Final = (*_FETCHED, *_below("data", "array_file.py", "build.py", "dataset.py", "decoding.py"))
_TRAINED: Final = (
    *_BACKEND,
    *_MANIFEST,
    *_RANKS,
    "data/loader.py",
    *_below("evaluation", "metrics.py", "summary.py"),
    *_below(
        "training", "checkpoint.py", "context.py", "handover.py", "loop.py", "result_files.py", "results.py", "spec.py"
    ),
)
_SHOWN: Final = (*_below("reports/figures", "fonts.py", "style.py"), "tracking")

CODE: Final[Mapping[str, tuple[str, ...]]] = {
    "config": ("config",),
    "download": (*_FETCHED, "download.py"),
    "prepare": (*_PREPARED, "prepare.py"),
    "describe": (
        *_below("core", "files.py", "records.py"),
        *_below("config/schema", "section.py", "data.py"),
        *_below("data", "array_file.py", "dataset.py", "images.py", "pixels.py", "remarks.py"),
        *_below("reports", "data_page.py", "describe.html.j2", "figures/data.py"),
        *_SHOWN,
        "describe.py",
    ),
    "trace": (*_BACKEND, *_MANIFEST, *_RANKS, "config/schema/trace.py", "equality/trace.py", "trace.py"),
    "parity": (
        "core/frameworks.py",
        *_NETWORK,
        *_MANIFEST,
        *_EQUALITY,
        *_below("evaluation", "summary.py"),
        *_below("training", "results.py"),
        *_below("reports", "parity.py", "figures/curves.py"),
        *_SHOWN,
        "parity.py",
    ),
    "train": (*_TRAINED, "train.py"),
    "evaluate": (
        *_EVALUATED,
        *_below("core", "frameworks.py"),
        *_below("training", "results.py"),
        *_below("reports", "evaluation.py", "figures/curves.py", "figures/evaluation.py"),
        *_below("reports/figures", "fonts.py", "style.py"),
        "evaluate.py",
    ),
    "speed": (
        *_below("core", "frameworks.py", "machine.py"),
        *_NETWORK,
        "models",
        *_RANKS,
        "config/schema/compare.py",
        *_below("evaluation", "latency.py", "speed.py", "speed_result.py", "speed_worker.py", "summary.py"),
        "speed.py",
    ),
    "compare": (
        "core/frameworks.py",
        *_NETWORK,
        *_MANIFEST,
        *_EQUALITY,
        *_below("config/schema", "compare.py", "evaluate.py"),
        "comparison",
        *_below("evaluation", "metrics.py", "speed_result.py", "summary.py"),
        *_below("training", "results.py"),
        *_below("exports", "result.py", "table.py"),
        *_below("reports", "publish.py", "html.py", "report.html.j2", "table.py"),
        *_below("reports/figures", "comparison.py", "curves.py", "evaluation.py"),
        *_SHOWN,
        "compare.py",
    ),
    "export": (
        *_BACKEND,
        "config/schema/export.py",
        "comparison/paired_tests.py",
        *_below("core", "frameworks.py"),
        *_below("evaluation", "latency.py", "metrics.py"),
        "exports",
        "tracking",
        "export.py",
    ),
    "job": (*_PREPARED, *_TRAINED, *_EVALUATED, "sweeps/job.py"),
}
"""Files and rooms below `pipeline/`, by stage; `{framework}` stands for the folder of the framework.

`job` is no stage: it is what decides the results of a sweep's job, without its figures.

Figures, pages and `tracking` are in no stage that trains: an edit of them must not retrain.
"""
INERT: Final = (
    *_below("core", "claim.py", "errors.py", "exits.py", "fingerprint.py", "frameworks.py", "gpus.py", "paths.py"),
    *_below("core", "progress.py", "provenance.py", "quiet.py", "redaction.py", "signals.py", "turns.py"),
    *_below("core", "working_tree.py"),
    *_below("config", "__main__.py", "call.py", "compose.py", "composer.py", "hydra_compat.py", "labels.py"),
    *_below("config", "messages_compat.py", "override_form_compat.py", "pairs.py", "quoting.py"),
    *_below("config/schema", "keys.py", "search.py", "tracking.py", "whole.py"),
    *_below("data", "cache.py"),
    *_below("models", "device.py"),
    *_below("ranks", "__init__.py", "connection.py", "entry.py", "follower.py", "group.py", "launch.py"),
    *_below("training", "console.py", "recorder.py", "run_logging.py", "run_tags.py"),
    *_below("sweeps", "app.py"),
    "search",
    "tracking",
)
"""Code that a stage may import without listing it: it changes neither bits nor files below `results/`.

Messages, exit codes, paths, logging to MLflow, the choice of the device, which is itself in the key, and modules that
only call the code that is listed. `core/frameworks.py`
is listed all the same by the stages that show titles and colours, or compare with the first framework; the others would
retrain for a colour.
"""


def of_json(value: Any, digits: int) -> str:
    """Return the BLAKE2b digest of a JSON value, independent of key order, in `digits` (even) hexadecimal digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=digits // 2).hexdigest()


def of_bytes(content: bytes, digits: int) -> str:
    """Return the BLAKE2b digest of these bytes in `digits` (even) hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=digits // 2).hexdigest()


@lru_cache
def of_code(*stages: str, framework: str) -> str:
    """Return 32 hexadecimal digits for the code of these stages (see `CODE`), ignoring comments and docstrings."""
    return of_json({str(path.relative_to(PACKAGE)): _code(path) for path in files(*stages, framework=framework)}, 32)


def files(*stages: str, framework: str) -> list[Path]:
    """Return the files that `CODE` lists for these stages, sorted by path."""
    patterns = {pattern.format(framework=framework) for stage in stages for pattern in CODE[stage]}
    paths = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    nested = {inner for path in paths if path.is_dir() for inner in path.rglob("*.py")}
    return sorted(path for path in paths | nested if path.is_file())


@lru_cache
def versions(framework: str) -> Mapping[str, str]:
    """Return the versions of NumPy and of the framework's packages by name: these decide the bits."""
    return {name: metadata.version(name) for name in (*frameworks.find(framework).packages, "numpy")}


def _code(path: Path) -> str:
    """Return the syntax tree of a Python file without docstrings, or the text of any other file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [inner for inner in body if not _is_docstring(inner)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
