"""The section `train`: optimiser, schedule, augmentation and execution."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Section


class SgdConfig(Section):
    """SGD as in torch.optim.SGD: v = momentum * v + gradient; weights -= learning rate of the step * v.

    Keras multiplies the learning rate into v, which differs once a schedule changes the rate. `nesterov`: the weights
    move by gradient + momentum * v in place of v (Sutskever et al. 2013, in torch's form).
    """

    name: Literal["sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "SgdConfig":
        if self.nesterov and not self.momentum:
            raise ValueError("train.optimizer.nesterov = True: needs train.optimizer.momentum > 0, not 0.0")
        return self


class AdaptiveConfig(Section):
    """Parameters of Adam (Kingma & Ba 2015, Algorithm 1): epsilon is added after the bias correction."""

    learning_rate: Annotated[float, Field(gt=0)]
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: Annotated[float, Field(gt=0)]


class AdamConfig(AdaptiveConfig):
    """Adam, see `AdaptiveConfig`."""

    name: Literal["adam"]


class AdamWConfig(AdaptiveConfig):
    """Adam after weights *= 1 - learning_rate * weight_decay for every parameter (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"]
    weight_decay: Annotated[float, Field(ge=0)]


Optimizer = Annotated[SgdConfig | AdamConfig | AdamWConfig, Field(discriminator="name")]


class Schedule(Section):
    """The learning rate of every step; all frameworks get the same numbers, see `data.plan.learning_rates`."""

    warmup_steps: Annotated[int, Field(ge=0)]
    """Number of first steps over which the rate grows linearly (Goyal et al. 2017, section 2.2); 0: no warm-up."""


class ConstantSchedule(Schedule):
    """`learning_rate` throughout."""

    name: Literal["constant"]


class CosineSchedule(Schedule):
    """Half a cosine from `learning_rate` over all steps after the warm-up (Loshchilov & Hutter 2017, eq. 5)."""

    name: Literal["cosine"]
    final_fraction: Annotated[float, Field(ge=0, le=1)]
    """End of the cosine, as a fraction of `learning_rate`."""


class StepSchedule(Schedule):
    """`learning_rate`, multiplied by `factor` after every `every_epochs` epochs."""

    name: Literal["step"]
    every_epochs: Annotated[int, Field(ge=1)]
    factor: Annotated[float, Field(gt=0, le=1)]


class AugmentConfig(Section):
    """Random changes of the training images, drawn anew in every epoch; the same in all frameworks."""

    pad_and_crop: Annotated[int, Field(ge=0, le=256)] = 0
    """Largest shift in pixels along each axis, filled with black (He et al. 2016, section 4.2: 4); 0: no shift."""
    flip: bool = False
    """Whether to mirror left and right with probability 1/2."""
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0
    """Side, in pixels, of a black square centred anywhere in the image (DeVries & Taylor 2017); 0: no square."""

    @property
    def active(self) -> bool:
        """Whether any of them is switched on."""
        return bool(self.pad_and_crop or self.flip or self.cutout)

    @property
    def draws(self) -> int:
        """Number of values drawn for an image, 5 or 0; see `models.augmentation`."""
        return 5 if self.active else 0


class TrainConfig(Section):
    """How a network is trained. A key means the same in every framework, whatever the framework's default."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    execution: Literal["auto", "eager", "graph", "compiled"]
    """How the steps are computed: one operation after the other, as a graph, or compiled; `auto`: the fastest of them.

    `core.frameworks.Framework` says which of them a framework has; each classifier, what is fastest.
    """
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What computes; `auto`: the GPU where every installed framework can use it, else the CPU."""
    precision: Literal["float32", "float64"]
    tf32: bool = False
    """Whether a GPU may round the factors of float32 products to 10 bits of mantissa (NVIDIA's TensorFloat-32)."""
    deterministic: bool
    threads: Annotated[int, Field(ge=1)] | None
    world: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of processes (ranks) that train one network, each on its share of every batch."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = 5.0
    """Interval of checkpoints in minutes, beside those after every epoch; None: after epochs only."""
    memory_mebibytes: Annotated[float, Field(gt=0)] | None = None
    """Limit on training images on the device; more are streamed, to the same bits. None: half of the free memory."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Target of each class: label_smoothing / classes, plus 1 - label_smoothing for the label's class."""
    clip_norm: Annotated[float, Field(gt=0)] | None
    """Largest common 2-norm of all gradients, which are scaled down together to it; None: no limit."""
    augment: AugmentConfig = AugmentConfig()
    optimizer: Optimizer
    schedule: Annotated[ConstantSchedule | CosineSchedule | StepSchedule, Field(discriminator="name")]
