"""Bring decoded images to the form that all images of a data set have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..config.schema.data import DataConfig

Raw: TypeAlias = np.ndarray | Image.Image
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


@dataclass(frozen=True)
class Form:
    """The form that images are brought to."""

    size: tuple[int, int] | None
    """(height, width); None: that of the image."""
    fit: str
    """`crop`, `pad` or `stretch`: how an image of another shape gets `size`."""
    channels: int | None
    """1: grey; 3: colour; None: that of the image."""

    @classmethod
    def of(cls, data: DataConfig) -> "Form":
        """Return the form that `data` asks for."""
        size = (data.size, data.size) if isinstance(data.size, int) else data.size
        return cls(None if size is None else (size[0], size[1]), data.fit, data.channels)

    def apply(self, raw: Raw) -> np.ndarray:
        """Return the image as uint8 (height, width, channels).

        `raw`: a PIL image, or an array uint8 (height, width) or (height, width, 1 or 3). Rotates the image by its EXIF
        orientation, keeps the upper 8 of 16 bits, and drops transparency, as torchvision's loader does. Resizes with
        PIL's bilinear filter, which averages over all pixels where an image shrinks. Raises ValueError for an array or
        mode that it does not take, or whatever Pillow raises.
        """
        if isinstance(raw, np.ndarray):
            array = raw[..., None] if raw.ndim == 2 else raw
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3):
                raise ValueError(f"{array.dtype} {array.shape}: allowed: uint8 in 1 or 3 channels")
            if self.size in (None, array.shape[:2]) and self.channels in (None, array.shape[-1]):
                return array
            raw = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
        rotation = _ROTATIONS.get(raw.getexif().get(ExifTags.Base.Orientation, 1))
        image = raw if rotation is None else raw.transpose(rotation)
        channels = self.channels or (1 if image.mode in _GREY_MODES else 3)
        image = _eight_bits(image).convert("L" if channels == 1 else "RGB")
        if self.size and image.size != self.size[::-1]:
            image = _FITS[self.fit](image, self.size[::-1])
        array = np.array(image)
        return array[..., None] if channels == 1 else array


def histogram_of(images: np.ndarray) -> np.ndarray:
    """Return the count of each pixel value, int64 (channels, 256), in images uint8 (N, height, width, channels)."""
    channels = images.shape[-1]
    tall = images.reshape(-1, images.shape[2], channels)
    # PIL counts four times as fast as NumPy
    counts = Image.fromarray(tall.squeeze(-1) if channels == 1 else tall).histogram()
    return np.array(counts, np.int64).reshape(channels, 256)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("holds floating-point values; allowed: 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    return image


# By EXIF orientation. Not ImageOps.exif_transpose: it also rewrites the EXIF data, and fails if they are damaged.
_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTER = Image.Resampling.BILINEAR
_FITS: dict[str, Callable[[Any, tuple[int, int]], Any]] = {
    "crop": lambda image, size: ImageOps.fit(image, size, _FILTER),
    "pad": lambda image, size: ImageOps.pad(image, size, _FILTER, color=0),
    "stretch": lambda image, size: image.resize(size, _FILTER),
}
