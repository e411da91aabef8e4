"""The section `train`: optimiser, schedule, augmentation, and how it is computed."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Section


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
