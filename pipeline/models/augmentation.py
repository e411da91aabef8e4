"""Which pixel of the image each pixel of an augmented one is: computed alike in NumPy, TensorFlow and PyTorch.

First the image is moved (pad and crop), then mirrored, then a square of it becomes black. All of it is integer
arithmetic on what the plan has drawn, so that both frameworks see the same bytes.
"""

from collections.abc import Callable
from typing import Any

from ..config.schema.train import AugmentConfig


def sources(
    augment: AugmentConfig, draws: Any, rows: Any, columns: Any, right_shift: Callable[[Any, int], Any]
) -> tuple[Any, Any]:
    """Row-major positions in the image, int64 (N, height, width), and whether the pixel is kept, or black.

    `draws`: int64 (N, 5), of each image: rows and columns that it is moved up and to the left by, whether it is
    mirrored (0 or 1), and two values that lie in [0, 2^32) where the centre of the cutout lies in height and width.
    `rows`, `columns`: int64 (1, height, 1) and (1, 1, width), 0, 1, .... Where a pixel is not kept its position means
    nothing.
    """
    height, width = rows.shape[1], columns.shape[2]
    up, left, mirrored, low, right = (draws[:, i, None, None] for i in range(5))
    row = rows + up
    column = columns + mirrored * (width - 1 - 2 * columns) + left
    kept = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    if augment.cutout:
        # of an even side, the centre is the first pixel after the middle, as in the paper's program
        top = right_shift(low * height, 32) - augment.cutout // 2
        start = right_shift(right * width, 32) - augment.cutout // 2
        below, beside = rows - top, columns - start
        kept &= ~((below >= 0) & (below < augment.cutout) & (beside >= 0) & (beside < augment.cutout))
    return row * width + column, kept
