"""Names and colours of the sides; without matplotlib, which takes a second to import."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Look:
    """How one side is shown."""

    title: str
    colour: str
    width: float
    """Of its curves: they often lie on each other, and both stay visible."""


LOOKS: Final = {  # colours of Okabe & Ito 2008
    "tensorflow": Look("TensorFlow", "#D55E00", 3.4),
    "pytorch": Look("PyTorch", "#0072B2", 1.4),
}
GREY: Final = "#8a8f98"
