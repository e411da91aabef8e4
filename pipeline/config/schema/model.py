"""The section `model`: the declared network."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Positive, Section

Activation = Literal["relu", "silu", "tanh", "softmax"]
Padding = Literal["valid", "same"]


class Conv(Section):
    """2-D convolution. `same`: zeros around, an odd one at the end, so that the output is ceil(input / stride)."""

    type: Literal["conv"]
    filters: Positive
    kernel_size: Positive
    stride: Positive = 1
    padding: Padding = "valid"
    bias: bool = True
    activation: Activation | None = None


class MaxPool(Section):
    """The largest value of each window; `stride` None: as large as the window."""

    type: Literal["max_pool"]
    size: Positive
    stride: Positive | None = None
    padding: Padding = "valid"


class AveragePool(Section):
    """The mean of each window, of what lies inside the image; `stride` None: as large as the window."""

    type: Literal["average_pool"]
    size: Positive
    stride: Positive | None = None
    padding: Padding = "valid"


class GlobalAveragePool(Section):
    """(height, width, channels) to (channels): the mean over the image."""

    type: Literal["global_average_pool"]


class BatchNorm(Section):
    """Ioffe & Szegedy 2015 over all axes but the last: trained scale and offset, running mean and variance.

    In training it divides by the biased variance of the batch, and the running variance takes the unbiased one, as in
    torch.nn.BatchNorm2d (Keras keeps the biased one).
    """

    type: Literal["batch_norm"]
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the new batch in the running values, as torch counts it (Keras: 1 - momentum)."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-5
    activation: Activation | None = None


class Dropout(Section):
    """Zero with probability `rate` in training, the rest divided by 1 - rate; the same values in both frameworks."""

    type: Literal["dropout"]
    rate: Annotated[float, Field(ge=0, lt=1)]


class Flatten(Section):
    """(height, width, channels) to one axis, channels fastest, in both frameworks."""

    type: Literal["flatten"]


class Dense(Section):
    """Fully connected layer."""

    type: Literal["dense"]
    units: Positive | Literal["classes"]
    bias: bool = True
    activation: Activation | None = None


class Residual(Section):
    """The sum of two branches from one input (He et al. 2016); an empty `shortcut` is the input itself."""

    type: Literal["residual"]
    layers: Annotated[list["Layer"], Field(min_length=1)]
    shortcut: list["Layer"] = Field(default_factory=list)
    activation: Activation | None = None


class Normalise(Section):
    """Minus the mean, over the standard deviation of the training images, channel by channel; see `ModelConfig`."""

    type: Literal["normalise"] = "normalise"


Layer = Annotated[
    Conv | MaxPool | AveragePool | GlobalAveragePool | BatchNorm | Dropout | Flatten | Dense | Residual,
    Field(discriminator="type"),
]


class ModelConfig(Section):
    """The declared network: a list of layers, and the rules its initial weights are drawn by."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=60)]
    kernel_initializer: Literal["glorot_uniform", "kaiming_uniform"]
    bias_initializer: Literal["zeros", "fan_in_uniform"]
    normalise: bool = False
    """Whether images, in [0, 1], first lose their channels' mean and are divided by their standard deviation."""
    layers: Annotated[list[Layer], Field(min_length=1)]

    @model_validator(mode="after")
    def _ends_in_classes(self) -> "ModelConfig":
        last = self.layers[-1]
        if not (isinstance(last, Dense) and last.units == "classes"):
            raise ValueError(
                f"model.layers[{len(self.layers) - 1}] is {last.type}; the last layer must be dense with units: classes"
            )
        return self
