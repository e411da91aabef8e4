"""The section `data`."""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from .section import Fraction, Section, Seed

_MOST_PIXELS: Final = 4096


def _is_size(value: Any) -> Any:
    pair = value if isinstance(value, list) else [value, value]
    if value is not None and not (len(pair) == 2 and all(type(n) is int and 1 <= n <= _MOST_PIXELS for n in pair)):
        raise ValueError(f"data.size = {value!r}: allowed: 1 to {_MOST_PIXELS}, [height, width] of these, null")
    return value


def _are_options(value: Any) -> Any:
    if not (isinstance(value, dict) and all(type(each) in (str, int, float, bool) for each in value.values())):
        raise ValueError(f"data.options = {value!r}: allowed: names, each with a text, a number, true or false")
    return value


Size = Annotated[int | list[int] | None, BeforeValidator(_is_size)]
Options = Annotated[dict[str, str | int | float | bool], BeforeValidator(_are_options)]


class DataConfig(Section):
    """Where the examples come from, what an image becomes, and how they are split."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", max_length=80)]
    """As the provider calls it (torchvision: in any spelling of case and underscores); for `folder` a name to show."""
    provider: Literal["bundled", "torchvision", "tfds", "folder"]
    mirror: Annotated[str, Field(min_length=1)] | None
    """A folder, or the http(s) URL of one, that holds the upstream files; None: their own addresses."""
    root: str | None
    """Of `folder`: the images, one sub-folder per class, or `train` and `test` that hold these."""
    options: Options
    """Further arguments of the library's data set, such as `split` of torchvision's EMNIST."""
    classes: Annotated[list[str], Field(min_length=2)] | None
    """Names of the classes by label; None: the provider's own."""
    size: Size
    """Height and width (one number: both) that every image is brought to; None: all have the same already."""
    fit: Literal["crop", "pad", "stretch"]
    """How an image of another shape gets `size`: its middle, black at its sides, or out of proportion."""
    channels: Literal[1, 3] | None
    """1: grey, 3: colour; None: grey where every image is."""
    corrupt: Literal["fail", "skip"]
    """What an image that cannot be decoded does; either way it is named."""
    test_fraction: Fraction
    """Of each class, for the test split: where the source has no test part of its own."""
    validation_fraction: Fraction
    """Of each class in the training part."""
    split_seed: Seed
    max_train: Annotated[int, Field(ge=20)] | None
    """Keep this many examples of the training part (before the validation split), for a quick look; None: all."""
    max_test: Annotated[int, Field(ge=10)] | None

    @model_validator(mode="after")
    def _provider_has_it(self) -> "DataConfig":
        if self.provider == "bundled" and self.name != "mnist_sample":
            raise ValueError(f"data.provider = 'bundled': does not have {self.name}; allowed: mnist_sample")
        if self.name == "mnist_sample" and self.provider != "bundled":
            raise ValueError(f"data.provider = {self.provider!r} does not have mnist_sample; allowed: 'bundled'")
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
            raise ValueError(f"data.classes = {self.classes!r}: every name once")
        return self
