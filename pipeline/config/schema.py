"""What a configuration may say. Every value is checked here, before any work is done."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Framework = Literal["tensorflow", "pytorch"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """Strict, frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the examples come from and how they are split."""

    name: Literal["mnist_sample", "mnist"]
    provider: Literal["bundled", "torchvision"]
    mirror: str | None
    """A folder, or the URL of one, that holds the upstream files; None: the provider's own addresses."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Seed
    max_train: Annotated[int, Field(ge=20)] | None
    """Keep this many examples of the training file (before the validation split), for a quick look; None: all."""
    max_test: Annotated[int, Field(ge=10)] | None

    @model_validator(mode="after")
    def _provider_has_it(self) -> "DataConfig":
        allowed = "bundled" if self.name == "mnist_sample" else "torchvision"
        if self.provider != allowed:
            raise ValueError(f"data.provider = {self.provider!r} does not have {self.name}; allowed: {allowed!r}")
        return self


Activation = Literal["relu", "softmax"]


class Conv(Section):
    """2-D convolution, no padding, stride 1."""

    type: Literal["conv"]
    filters: Annotated[int, Field(ge=1)]
    kernel_size: Annotated[int, Field(ge=1)]
    activation: Activation | None = None


class Flatten(Section):
    """(height, width, channels) to one axis, channels fastest, in both frameworks."""

    type: Literal["flatten"]


class Dense(Section):
    """Fully connected layer."""

    type: Literal["dense"]
    units: Annotated[int, Field(ge=1)] | Literal["classes"]
    activation: Activation | None = None


Layer = Annotated[Conv | Flatten | Dense, Field(discriminator="type")]


class ModelConfig(Section):
    """The declared network: a list of layers, and the rules its initial weights are drawn by."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=60)]
    kernel_initializer: Literal["glorot_uniform", "kaiming_uniform"]
    bias_initializer: Literal["zeros", "fan_in_uniform"]
    layers: Annotated[list[Layer], Field(min_length=1)]

    @model_validator(mode="after")
    def _ends_in_classes(self) -> "ModelConfig":
        last = self.layers[-1]
        if not (isinstance(last, Dense) and last.units == "classes"):
            raise ValueError(
                f"model.layers[{len(self.layers) - 1}] is {last.type}; the last layer must be dense with units: classes"
            )
        return self


class AdamConfig(Section):
    """Adam (Kingma & Ba 2015, Algorithm 1): epsilon is added outside the bias correction, in both frameworks."""

    name: Literal["adam"]
    learning_rate: Annotated[float, Field(gt=0)]
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: Annotated[float, Field(gt=0)]


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


class TrainConfig(Section):
    """How a network is trained; one meaning per key, whatever the framework's own default."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    execution: Literal["auto", "eager", "compiled"]
    precision: Literal["float32", "float64"]
    deterministic: bool
    threads: Annotated[int, Field(ge=1)] | None
    optimizer: AdamConfig
    schedule: Annotated[ConstantSchedule | CosineSchedule | StepSchedule, Field(discriminator="name")]


class EvaluateConfig(Section):
    """How predictions are judged."""

    calibration_bins: Annotated[int, Field(ge=1)]


class TrackingConfig(Section):
    """What goes to MLflow beside metrics and parameters, and under which experiment."""

    experiment: Annotated[str, Field(min_length=1, max_length=200)]
    system_metrics_seconds: Annotated[float, Field(ge=0.1)] | None
    log_model: bool


class Config(Section):
    """The whole experiment, as `params.yaml` holds it."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    tracking: TrackingConfig
    framework: Framework
    seeds: Annotated[list[Seed], Field(min_length=1)]
    conf_digest: str

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Config":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: every seed once")
        return self
