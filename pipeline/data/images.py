"""Decode images, and bring them to the form that all images of a data set have."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..config.schema.data import DataConfig

Raw: TypeAlias = np.ndarray | Image.Image
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_WARNED_PIXELS: Final = 89_478_485  # from here on Pillow warns of a decompression bomb
_REDUCED: Final = "pipeline.reduced"  # key of an image's `info`
REDUCED: Final = "Images with 16 bits of colour, of which Pillow reads the upper 8"
_TRANSPARENT: Final = "Images whose transparency is dropped: the hidden colours count"
_FRAMES: Final = "Images of which only the first frame or page is read"
_LARGE: Final = "Images of more than 89 megapixels, which data.max_megapixels bounds"


class DeeperError(Exception):
    """An image holds larger values than `Form.depth` allows for."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self.depth = depth
        """Bits of its largest value."""


@dataclass(frozen=True)
class Form:
    """The form that images are brought to."""

    size: tuple[int, int] | None
    """(height, width); None: that of the image."""
    fit: str
    """`crop`, `pad` or `stretch`: how an image of another shape gets `size`."""
    channels: int | None
    """1: grey; 3: colour; None: that of the image."""
    depth: int = 8
    """Bits of the largest value in all grey images of more than 8 bits; the upper 8 of these bits are kept."""

    @classmethod
    def of(cls, data: DataConfig) -> "Form":
        """Return the form that `data` asks for."""
        size = (data.size, data.size) if isinstance(data.size, int) else data.size
        return cls(None if size is None else (size[0], size[1]), data.fit, data.channels)

    def apply(self, raw: Raw) -> np.ndarray:
        """Return the image as uint8 (height, width, channels).

        `raw`: a PIL image, or an array uint8 (height, width) or (height, width, 1 or 3). Rotates the image by its EXIF
        orientation, keeps the upper 8 of `depth` bits, and drops transparency, as torchvision's loader does. Resizes
        with PIL's bilinear filter, which averages over all pixels where an image shrinks. Raises `DeeperError` for a
        value of more bits than `depth`, ValueError for an array or mode that it does not take, or whatever Pillow
        raises.
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
        image = _eight_bits(image, self.depth).convert("L" if channels == 1 else "RGB")
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


def decode(file: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """Decode an image file. Raises whatever Pillow raises."""
    image = Image.open(file)
    reduced = _is_reduced(image)
    image.load()
    if reduced:
        image.info[_REDUCED] = True
    return image


def peculiarities(raw: Raw) -> list[str]:
    """Return what an image holds that `Form.apply` does not keep, in the words of a `Remark`."""
    if isinstance(raw, np.ndarray):
        return []
    several = getattr(raw, "is_animated", False) and raw.format != "MPO"  # there, the others are previews
    found = {
        REDUCED: _REDUCED in raw.info,
        _TRANSPARENT: _is_transparent(raw),
        _FRAMES: several,
        _LARGE: raw.width * raw.height > _WARNED_PIXELS,
    }
    return [words for words, holds in found.items() if holds]


def is_deep(raw: Raw) -> bool:
    """Return whether an image is grey with more than 8 bits, see `Form.depth`."""
    return isinstance(raw, Image.Image) and raw.mode.startswith("I")


@contextmanager
def pixel_limit(megapixels: int) -> Iterator[None]:
    """Let Pillow raise `DecompressionBombError` from this size on, in place of its own limit and warning."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = megapixels * 500_000  # the error comes at twice this number
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _is_reduced(image: Image.Image) -> bool:
    """Return whether Pillow will keep 8 of 16 bits. Only before `load` the image says how its file is decoded."""
    if not image.tile or image.mode.startswith("I"):
        return False
    how = image.tile[0].args
    how = how if isinstance(how, tuple) else (how,)
    return ";16" in str(how[0]) or (image.tile[0].codec_name == "ppm" and how[-1] == 65535)


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    if image.mode.startswith(("I", "F")):  # one value stands for what is transparent
        return bool((np.asarray(image) == image.info.get("transparency")).any())
    return bool(image.convert("RGBA").getchannel("A").getextrema()[0] != 255)


def _eight_bits(image: Image.Image, depth: int) -> Image.Image:
    if image.mode == "F":
        raise ValueError("holds floating-point values; allowed: whole numbers from 0 on")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise ValueError(f"holds values from {low} to {high}; allowed: whole numbers from 0 on")
    if high >> depth:
        raise DeeperError(high.bit_length())
    return Image.fromarray((values >> (depth - 8)).astype(np.uint8))


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
