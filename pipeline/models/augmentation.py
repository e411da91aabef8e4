"""The source pixel of each pixel of an augmented image, computed alike in NumPy, TensorFlow and PyTorch.

The image is shifted (pad and crop), then mirrored, then a square of it becomes black (cutout, DeVries & Taylor 2017).
All of it is integer arithmetic on the draws of the plan, so that every framework trains on the same bytes.
"""

from collections.abc import Callable
from typing import Any

from ..config.schema.train import AugmentConfig


def sources(
    augment: AugmentConfig, draws: Any, rows: Any, columns: Any, right_shift: Callable[[Any, int], Any]
) -> tuple[Any, Any]:
    """Return source positions, int64 (N, height, width), and a mask of the same shape that is false for black pixels.

    Positions are row-major in the image, and undefined where the mask is false. `draws`: int64 (N, 5), for each image:
    the shift up and the shift to the left in pixels, whether it is mirrored (0 or 1), and the centre of the cutout as
    fractions of height and width, scaled from [0, 1) to [0, 2^32). `rows`: int64 (1, height, 1), 0, 1, ...; `columns`:
    int64 (1, 1, width), 0, 1, ....
    """
    height, width = rows.shape[1], columns.shape[2]
    up, left, mirrored, low, right = (draws[:, i, None, None] for i in range(5))
    row = rows + up
    column = columns + mirrored * (width - 1 - 2 * columns) + left
    visible = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    if augment.cutout:
        # for an even side, the centre is the first pixel after the middle, as in the authors' program
        top = right_shift(low * height, 32) - augment.cutout // 2
        start = right_shift(right * width, 32) - augment.cutout // 2
        below, beside = rows - top, columns - start
        visible &= ~((below >= 0) & (below < augment.cutout) & (beside >= 0) & (beside < augment.cutout))
    return row * width + column, visible
