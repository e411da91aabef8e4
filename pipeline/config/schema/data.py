"""The section `data`."""

import unicodedata
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ...core.redaction import without_credentials
from .section import Fraction, Positive, Section, Seed

_MOST_PIXELS: Final = 4096


def _is_size(value: Any) -> Any:
    pair = value if isinstance(value, list) else [value, value]
    if value is not None and not (len(pair) == 2 and all(type(n) is int and 1 <= n <= _MOST_PIXELS for n in pair)):
        raise ValueError(f"data.size = {value!r}: allowed: 1 to {_MOST_PIXELS}, [height, width] of these, or null")
    return value


def _is_no_secret(mirror: str) -> str:
    if without_credentials(mirror) != mirror:
        kept = "has credentials, which params.yaml, DVC and MLflow would keep"
        login = "machine <host> login <user> password <password>"
        raise ValueError(f"data.mirror: {kept}; allowed: a URL without them, and a line `{login}` in ~/.netrc")
    return mirror


def _are_options(value: Any) -> Any:
    if not (isinstance(value, dict) and all(type(each) in (str, int, float, bool) for each in value.values())):
        raise ValueError(f"data.options = {value!r}: allowed: names, each with a text, number, true or false")
    return value


def _composed(value: Any) -> Any:
    """Return a name as it is compared: letters and their accents may be one sign or two (Unicode's NFC)."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


Size = Annotated[int | list[int] | None, BeforeValidator(_is_size)]
Options = Annotated[dict[str, str | int | float | bool], BeforeValidator(_are_options)]


class DataConfig(Section):
    """The source of the examples, the form that images are brought to, and the splits."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", max_length=80)]
    """The provider's name of the data set (torchvision: case and underscores do not matter); `folder`: any name."""
    provider: Literal["bundled", "torchvision", "tfds", "folder"]
    mirror: Annotated[str, Field(min_length=1), AfterValidator(_is_no_secret)] | None
    """A folder with the upstream files, or its URL (http, https, file); None: fetch them from their own addresses.

    A URL has no credentials; those for its host are read from `~/.netrc`.
    """
    root: str | None
    """Folder of the provider `folder`: a sub-folder per class, or `train`, `test`, `validation` that hold these."""
    options: Options
    """Further arguments for the library's data set, such as `split` of torchvision's EMNIST."""
    classes: Annotated[list[Annotated[str, BeforeValidator(_composed)]], Field(min_length=2)] | None
    """Names of the classes, by label; None: the provider's. Of `folder`: all class folders, in that order."""
    size: Size
    """[height, width] in pixels that every image is brought to (one number: both); None: all must have one size."""
    fit: Literal["crop", "pad", "stretch"]
    """How an image of another shape gets `size`: cropped to its middle, padded with black, or stretched."""
    channels: Literal[1, 3] | None
    """1: grey; 3: colour; None: grey if every image is, else colour."""
    corrupt: Literal["fail", "skip"]
    """Whether an image that cannot be decoded is an error or is left out; either way, its name is reported."""
    max_megapixels: Positive
    """Most megapixels of an image; a larger one counts as one that cannot be decoded."""
    test_fraction: Fraction
    """Fraction of each class for the test split; unused if the source has a test part."""
    validation_fraction: Fraction
    """Fraction of each class in the training part for the validation split; unused if the source has such a part."""
    split_seed: Seed
    max_train: Annotated[int, Field(ge=20)] | None
    """Number of examples of the training part that are kept, before the validation split; None: all."""
    max_test: Annotated[int, Field(ge=10)] | None
    """Number of examples of the test part that are kept; None: all."""

    @model_validator(mode="after")
    def _fits_provider(self) -> "DataConfig":
        if self.provider == "bundled" and self.name != "mnist_sample":
            raise ValueError(f"data.provider = 'bundled': does not have {self.name}; allowed: mnist_sample")
        if self.name == "mnist_sample" and self.provider != "bundled":
            raise ValueError(f"data.provider = {self.provider!r}: does not have mnist_sample; allowed: 'bundled'")
        if self.provider == "folder" and not self.root:
            raise ValueError(
                f"data.root = {self.root!r}: data.provider = 'folder' needs the folder that holds the images"
            )
        if self.provider != "folder" and self.root:
            raise ValueError(f"data.root = {self.root!r}: only for data.provider = 'folder', not {self.provider!r}")
        if self.provider in ("bundled", "folder") and self.options:
            raise ValueError(f"data.options = {self.options!r}: only for data.provider = 'torchvision' or 'tfds'")
        if self.provider in ("bundled", "folder") and self.mirror:
            raise ValueError(f"data.mirror = {self.mirror!r}: only for data.provider = 'torchvision' or 'tfds'")
        if self.classes and len(set(self.classes)) != len(self.classes):
            raise ValueError(f"data.classes = {self.classes!r}: every name must occur once")
        return self
