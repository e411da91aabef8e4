"""Whether an exported network gives the logits that the framework gave."""

import numpy as np

from ..core.errors import ExportError


def require_logits(title: str, found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of a logit. Raises `ExportError` if the shape differs, or one is not finite."""
    if found.shape != expected.shape:
        raise ExportError(f"{title}: gives logits of the shape {found.shape}; expected {expected.shape}")
    if not np.isfinite(found).all():
        raise ExportError(f"{title}: gives logits that are not finite")
    return float(np.abs(found - expected).max())


def require_same(title: str, found: np.ndarray, expected: np.ndarray, tolerance: float, of: str) -> tuple[float, float]:
    """Return the largest difference of a logit, and the largest that is allowed.

    `tolerance`: `export.tolerance`. `of`: what gave the expected ones. Raises `ExportError` if one differs by more.
    """
    difference = require_logits(title, found, expected)
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    if difference > allowed:
        raise ExportError(
            f"{title}: a logit differs by {difference:.3g} from that of {of}; allowed: {allowed:.3g} "
            f"(export.tolerance = {tolerance:g} of the largest)"
        )
    return difference, allowed
