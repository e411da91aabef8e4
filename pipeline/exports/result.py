"""What came of an export: `exports.json`."""

from ..core.records import Record


class Timing(Record):
    """Medians over calls."""

    one_image_milliseconds: float
    """Of a batch of one image."""
    batch_milliseconds: float
    """Of a batch of 256 images, or of as many as there are."""
    images_per_second: float
    """In such batches."""


class ExportedFile(Record):
    """One format of one network."""

    format: str
    """`onnx`, `native`, `onnx_int8`, `litert`, or `framework`: the framework itself, without a file."""
    title: str
    file: str
    """Name of the file or folder below `exports/`; empty: none."""
    bytes: int
    difference: float
    """Largest difference of a logit from the framework's own, absolute."""
    allowed: float | None
    """Largest difference that is allowed, absolute; None: predictions are tested instead."""
    examples: int
    """Number of test images that were compared."""
    changed: int
    """Number of these that the export gives another class."""
    p_equivalence: float | None
    """Of the test that its accuracy is equivalent; None: the difference of logits decides."""
    timing: Timing


class ExportResult(Record):
    """All formats of one network."""

    framework: str
    seed: int
    weights: str
    """Digest of the weights."""
    fingerprint: str
    """Of the data."""
    files: tuple[ExportedFile, ...]
    """The framework itself first."""
