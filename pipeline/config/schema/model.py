"""The section `model`: the declared network."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Positive, Section

Activation = Literal["relu", "silu", "tanh", "softmax"]
Padding = Literal["valid", "same"]


class Conv(Section):
    """2-D convolution. `same`: padded with zeros to ceil(input / stride) outputs, an odd zero at the end."""

    type: Literal["conv"]
    filters: Positive
    kernel_size: Positive
    stride: Positive = 1
    padding: Padding = "valid"
    bias: bool = True
    activation: Activation | None = None


class MaxPool(Section):
    """Maximum of each window. `size`: of the window, in pixels; `stride` None: `size`."""

    type: Literal["max_pool"]
    size: Positive
    stride: Positive | None = None
    padding: Padding = "valid"


class AveragePool(Section):
    """Mean of each window over the pixels inside the image. `size`: of the window; `stride` None: `size`."""

    type: Literal["average_pool"]
    size: Positive
    stride: Positive | None = None
    padding: Padding = "valid"


class GlobalAveragePool(Section):
    """Mean over the image: (height, width, channels) to (channels)."""

    type: Literal["global_average_pool"]


class BatchNorm(Section):
    """Batch normalisation (Ioffe & Szegedy 2015) over all axes but the last, with trained scale and offset.

    Training divides by the standard deviation of the batch from its biased variance. The running variance takes the
    unbiased one, as in torch.nn.BatchNorm2d (Keras: the biased one).
    """

    type: Literal["batch_norm"]
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of the new batch in the running mean and variance, as in torch (Keras: 1 - momentum)."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-5
    activation: Activation | None = None


class Dropout(Section):
    """Dropout: in training, zero with probability `rate`, else divide by 1 - rate. All frameworks drop the same."""

    type: Literal["dropout"]
    rate: Annotated[float, Field(ge=0, lt=1)]


class Flatten(Section):
    """(height, width, channels) to one axis, channels fastest, in every framework."""

    type: Literal["flatten"]


class Dense(Section):
    """Fully connected layer. `units` `classes`: as many as the data set has classes."""

    type: Literal["dense"]
    units: Positive | Literal["classes"]
    bias: bool = True
    activation: Activation | None = None


class Residual(Section):
    """Sum of two branches from one input (He et al. 2016); an empty `shortcut` is the identity."""

    type: Literal["residual"]
    layers: Annotated[list["Layer"], Field(min_length=1)]
    shortcut: list["Layer"] = Field(default_factory=list)
    activation: Activation | None = None


class Normalise(Section):
    """(x - mean) / standard deviation of the training images, by channel; see `ModelConfig.normalise`."""

    type: Literal["normalise"] = "normalise"


Layer = Annotated[
    Conv | MaxPool | AveragePool | GlobalAveragePool | BatchNorm | Dropout | Flatten | Dense | Residual,
    Field(discriminator="type"),
]


class ModelConfig(Section):
    """The declared network: a list of layers, and the initialisers of its weights."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=60)]
    kernel_initializer: Literal["glorot_uniform", "kaiming_uniform"]
    bias_initializer: Literal["zeros", "fan_in_uniform"]
    normalise: bool = False
    """Whether images, in [0, 1], are first normalised to mean 0 and standard deviation 1 by channel."""
    layers: Annotated[list[Layer], Field(min_length=1)]

    @model_validator(mode="after")
    def _ends_in_classes(self) -> "ModelConfig":
        last = self.layers[-1]
        if not (isinstance(last, Dense) and last.units == "classes"):
            raise ValueError(
                f"model.layers[{len(self.layers) - 1}] is {last.type}; the last layer must be dense with units: classes"
            )
        return self
