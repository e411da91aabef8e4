"""Export one trained network to several formats, and prove each."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..comparison import paired_tests
from ..config.schema.export import ExportConfig, Format
from ..core.errors import ExportError, UserError
from ..core.files import atomic_directory
from ..core.frameworks import find
from ..core.progress import steps
from ..data.dataset import Dataset
from ..evaluation import metrics
from ..models import backend
from . import declared, int8
from .formats import INT8, ONNX, FileFormat, format_of
from .proof import require_logits, require_same
from .result import ExportedFile, ExportResult, Timing

_MODULE: Final = "pipeline.exports.process"
_BOOTSTRAP: Final = 2000


@dataclass(frozen=True)
class Network:
    """The trained network that is exported."""

    framework: str
    seed: int
    folder: Path
    """See `backend.model_folder`."""
    dataset: Dataset
    logits: np.ndarray
    """Of the whole test split, float32 (N, classes), by the framework itself."""


@dataclass(frozen=True)
class _Read:
    """What a process says of a file that it has opened."""

    logits: np.ndarray
    timing: Timing


def export(network: Network, config: ExportConfig, output: Path) -> ExportResult:
    """Write every format into `output`, which is replaced, prove each, and return the result.

    Raises `ExportError` naming the format that does not compute the same; `output` is unchanged then.
    """
    architecture, weights, description = backend.read_saved(network.folder)
    wanted = [(name, found) for name in config.formats if (found := format_of(name, network.framework))]
    test = network.dataset.split("test")
    facts = {
        "framework": network.framework,
        "seed": str(network.seed),
        "weights": description["weights"],
        "data": network.dataset.name,
        "data.fingerprint": network.dataset.fingerprint,
        "classes": ", ".join(network.dataset.classes),
    }
    files: list[ExportedFile] = []
    with tempfile.TemporaryDirectory() as scratch, atomic_directory(output) as building:
        place = Path(scratch)
        count = min(config.examples, len(test.labels))
        golden = _images(place / "golden.npy", test.images[:count])
        whole = place / "test.npy"
        declared_file = building / ONNX.file if "onnx" in config.formats else place / ONNX.file
        model = declared.model_of(architecture, weights, facts)
        declared_file.write_bytes(model.SerializeToString(deterministic=True))
        with steps(f"export {network.framework}", len(wanted), "formats") as progress:
            for name, found in wanted:
                path, images = building / found.file, golden
                if found is INT8:
                    images = whole if whole.exists() else _images(whole, test.images[:])
                    calibration = network.dataset.split("train").images[: config.calibration_images]
                    int8.quantise(declared_file, path, np.ascontiguousarray(calibration))
                elif found.writer:
                    own = _process("write", name, network.framework, network.folder, path, golden, place)
                    if name == "native":
                        files.append(
                            _judged("framework", _own(network.framework), own, 0, network, test.labels, config)
                        )
                read = _process("read", name, network.framework, path, images, place)
                size = _bytes_of(path)
                files.append(_judged(name, found, read, size, network, test.labels, config))
                progress(1)
        return ExportResult(
            framework=network.framework,
            seed=network.seed,
            weights=description["weights"],
            fingerprint=network.dataset.fingerprint,
            files=tuple(sorted(files, key=lambda file: file.format != "framework")),
        )


def _own(framework: str) -> FileFormat:
    return FileFormat(find(framework).style.title, "", "", framework)


def _images(path: Path, images: np.ndarray) -> Path:
    np.save(path, np.ascontiguousarray(images))
    return path


def _process(verb: str, name: Format, framework: str, *paths: Path) -> _Read:
    """Write or read a format in a process of its own; the last path is scratch space. Raises `ExportError`."""
    *given, scratch = paths
    result = scratch / f"{verb}_{name}.npz"
    command = [sys.executable, "-m", _MODULE, verb, name, framework, *map(str, given), str(result)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode or not result.exists():
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise ExportError(
            f"{name} of {framework}: the process that was to {verb} it ended with {done.returncode}: {said[0]}"
        )
    with np.load(result, allow_pickle=False) as file:
        return _Read(file["logits"], Timing.model_validate_json(str(file["timing"])))


def _judged(
    name: str,
    found: FileFormat,
    read: _Read,
    size: int,
    network: Network,
    labels: np.ndarray,
    config: ExportConfig,
) -> ExportedFile:
    """Compare logits with those of the framework. Raises `ExportError` if they are not the same."""
    expected, allowed, p_value = network.logits[: len(read.logits)], None, None
    if found.exact:
        title = find(network.framework).style.title
        difference, allowed = require_same(found.title, read.logits, expected, config.tolerance, title)
    else:
        difference = require_logits(found.title, read.logits, expected)
    changed = int((metrics.predicted_labels(read.logits) != metrics.predicted_labels(expected)).sum())
    if not found.exact:
        p_value = _p_equivalence(read.logits, expected, labels, config.margin)
        if p_value >= paired_tests.LEVEL:
            raise ExportError(
                f"{found.title}: not shown to be as accurate within {config.margin:g}: {changed} of {len(expected):,} "
                f"predictions changed, equivalence test p = {p_value:.3g}"
            )
    return ExportedFile(
        format=name,
        title=found.title,
        file=found.file,
        bytes=size,
        difference=difference,
        allowed=allowed,
        examples=len(expected),
        changed=changed,
        p_equivalence=p_value,
        timing=read.timing,
    )


def _p_equivalence(export: np.ndarray, expected: np.ndarray, labels: np.ndarray, margin: float) -> float:
    """Return the p-value of a difference in accuracy of `margin` or more, over other examples."""
    found = paired_tests.differences(export[None], expected[None], labels, bins=10, resamples=_BOOTSTRAP)
    return found["accuracy"].p_equivalence(margin)


def _bytes_of(path: Path) -> int:
    paths: Sequence[Path] = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in paths)


def read_logits(predictions: Path, seed: int) -> np.ndarray:
    """Return the test logits of a seed from `predictions.npz`. Raises `UserError`."""
    try:
        with np.load(predictions, allow_pickle=False) as file:
            stored: Mapping[str, np.ndarray] = {key: file[key] for key in ("logits", "seeds")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{predictions}: cannot be read ({error}); run `dvc repro evaluate`") from error
    (rows,) = np.nonzero(stored["seeds"] == seed)
    if not len(rows):
        raise UserError(f"{predictions}: has no seed {seed}; run `dvc repro evaluate`")
    return np.asarray(stored["logits"][rows[0]])
