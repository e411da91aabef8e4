"""What a configuration may say. Every value is checked here, before any work is done."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Framework = Literal["tensorflow", "pytorch"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """Strict, frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Fraction = Annotated[float, Field(gt=0, lt=1)]
_MOST_PIXELS = 4096


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


Activation = Literal["relu", "silu", "tanh", "softmax"]
Padding = Literal["valid", "same"]
Positive = Annotated[int, Field(ge=1)]


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
    shortcut: list["Layer"] = []
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


class SgdConfig(Section):
    """v = momentum * v + gradient; weights -= learning rate * v, the learning rate of the step (torch.optim.SGD).

    Keras takes the learning rate into v, which differs as soon as a schedule moves it. `nesterov`: the weights move by
    gradient + momentum * v (Sutskever et al. 2013, as torch writes it).
    """

    name: Literal["sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "SgdConfig":
        if self.nesterov and not self.momentum:
            raise ValueError("train.optimizer.nesterov = True: needs train.optimizer.momentum > 0, which is 0.0")
        return self


class AdaptiveConfig(Section):
    """Adam's own (Kingma & Ba 2015, Algorithm 1): epsilon is added outside the bias correction, in both frameworks."""

    learning_rate: Annotated[float, Field(gt=0)]
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: Annotated[float, Field(gt=0)]


class AdamConfig(AdaptiveConfig):
    """See `AdaptiveConfig`."""

    name: Literal["adam"]


class AdamWConfig(AdaptiveConfig):
    """Adam after weights *= 1 - learning_rate * weight_decay, of every parameter (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"]
    weight_decay: Annotated[float, Field(ge=0)]


Optimizer = Annotated[SgdConfig | AdamConfig | AdamWConfig, Field(discriminator="name")]


class Schedule(Section):
    """How the learning rate moves, step by step; the same numbers go to both frameworks."""

    warmup_steps: Annotated[int, Field(ge=0)]
    """Over so many first steps it grows linearly to `learning_rate` (Goyal et al. 2017, section 2.2)."""


class ConstantSchedule(Schedule):
    """`learning_rate` throughout."""

    name: Literal["constant"]


class CosineSchedule(Schedule):
    """From `learning_rate` along half a cosine over all steps after the warm-up (Loshchilov & Hutter 2017, eq. 5)."""

    name: Literal["cosine"]
    final_fraction: Annotated[float, Field(ge=0, le=1)]
    """Of `learning_rate`: where the cosine ends."""


class StepSchedule(Schedule):
    """Times `factor` after every `every_epochs` epochs."""

    name: Literal["step"]
    every_epochs: Annotated[int, Field(ge=1)]
    factor: Annotated[float, Field(gt=0, le=1)]


class AugmentConfig(Section):
    """What training does to its images, each drawn anew in every epoch; the same in both frameworks."""

    pad_and_crop: Annotated[int, Field(ge=0, le=256)] = 0
    """Moved by up to so many pixels both ways, black coming in (He et al. 2016, section 4.2: 4); 0: never."""
    flip: bool = False
    """Left becomes right with probability 1/2."""
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0
    """Side of a black square with its centre anywhere in the image (DeVries & Taylor 2017); 0: none."""

    @property
    def active(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.pad_and_crop or self.flip or self.cutout)

    @property
    def draws(self) -> int:
        """How many values are drawn for an image, see `models.augmentation`."""
        return 5 if self.active else 0


class TrainConfig(Section):
    """How a network is trained; one meaning per key, whatever the framework's own default."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    execution: Literal["auto", "eager", "compiled"]
    precision: Literal["float32", "float64"]
    deterministic: bool
    threads: Annotated[int, Field(ge=1)] | None
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = 5.0
    """So often, and after every epoch, training writes what it can be continued from; None: after epochs only."""
    memory_mebibytes: Annotated[float, Field(gt=0)] | None = None
    """Of training images on the device at once; more are streamed: the same bits. None: half of what is free."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """The target of every class is label_smoothing / classes, and 1 - label_smoothing more for the label."""
    clip_norm: Annotated[float, Field(gt=0)] | None
    """All gradients are scaled down together until their common 2-norm is at most this; None: they are not."""
    augment: AugmentConfig = AugmentConfig()
    optimizer: Optimizer
    schedule: Annotated[ConstantSchedule | CosineSchedule | StepSchedule, Field(discriminator="name")]


class TraceConfig(Section):
    """How much evidence is gathered that both frameworks compute the same."""

    steps: Annotated[int, Field(ge=2)]
    """Optimiser steps, over two epochs that each end with a partial batch."""
    batch_size: Annotated[int, Field(ge=3)]
    seed: Seed


class ParityConfig(Section):
    """How far the two frameworks may be apart: the 2-norm of each array's difference, relative to its layer's norm."""

    gradients: Annotated[float, Field(gt=0)]
    """Of outputs and gradients on one batch, in float64."""
    trajectory_float64: Annotated[float, Field(gt=0)]
    """Of the loss of every step, and of the weights that training arrives at."""
    trajectory_float32: Annotated[float, Field(gt=0)]


class EvaluateConfig(Section):
    """How predictions are judged."""

    calibration_bins: Annotated[int, Field(ge=1)]
    plots: bool
    """Whether the pictures below `plots/` are drawn, which takes longer than to train a small network for an epoch."""


class MarginConfig(Section):
    """The smallest difference that matters, in the unit of each metric."""

    accuracy: Annotated[float, Field(gt=0, lt=1)]
    loss: Annotated[float, Field(gt=0)]
    """Nats."""
    calibration_error: Annotated[float, Field(gt=0, lt=1)]


class SpeedConfig(Section):
    """How long the two frameworks take turns."""

    rounds: Annotated[int, Field(ge=3, le=10_000)]
    """Each round measures both: ratios are within a round, the interval is over the rounds."""
    block_seconds: Annotated[float, Field(ge=0.01, le=60)]
    """Of training, in each round and framework; inference takes less."""


class CompareConfig(Section):
    """How the two sides are compared."""

    margin: MarginConfig
    resamples: Annotated[int, Field(ge=200, le=100_000)]
    """Of the bootstrap over the examples."""
    speed: SpeedConfig


class TrackingConfig(Section):
    """What goes to MLflow beside metrics and parameters, and under which experiment."""

    experiment: Annotated[str, Field(min_length=1, max_length=200)]
    system_metrics_seconds: Annotated[float, Field(ge=0.1)] | None
    log_model: bool


class SweepConfig(Section):
    """What a sweep does with jobs that were done before."""

    rerun: bool


class Config(Section):
    """The whole experiment, as `params.yaml` holds it."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    trace: TraceConfig
    parity: ParityConfig
    evaluate: EvaluateConfig
    compare: CompareConfig
    tracking: TrackingConfig
    sweep: SweepConfig
    framework: Framework
    seeds: Annotated[list[Seed], Field(min_length=1)]
    conf_digest: str

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Config":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: every seed once")
        return self
