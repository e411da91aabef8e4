"""The style of all figures, and how a figure is written."""

import base64
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec

os.environ["MPLBACKEND"] = "agg"  # an unknown one in the environment would end the import
import matplotlib as mpl
import matplotlib.pyplot as plt

from ...core.files import atomic_file
from . import fonts

mpl.rcdefaults()  # the same pictures, whatever the user's matplotlibrc says
mpl.use("Agg")

P = ParamSpec("P")

GREY: Final = "#8a8f98"
_STYLE: Final = {
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b8bcc4",
    "axes.labelcolor": "#333a45",
    "xtick.color": "#5b6270",
    "ytick.color": "#5b6270",
    "axes.grid": True,
    "grid.color": "#e9ebef",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "figures",  # the same figure gives the same bytes
}


def styled(function: Callable[P, Any]) -> Callable[P, Any]:
    """Decorate a function that returns a matplotlib figure: draw it in the common style.

    Texts among its arguments may be in any script that a font of this machine has.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        families = fonts.families([*args, *kwargs.values()])
        with plt.rc_context(_STYLE | ({"font.family": families} if len(families) > 1 else {})):
            return function(*args, **kwargs)

    return wrapper


def subplots(*args: Any, **kwargs: Any) -> Any:
    """Call `pyplot.subplots`: this module sets the backend before it imports pyplot, and no other module imports it."""
    return plt.subplots(*args, **kwargs)


def short(name: str, most: int) -> str:
    """Put a name on one line of at most `most` characters; a longer one ends with an ellipsis."""
    text = " ".join(name.split())
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


@contextmanager
def _without_warnings_of_boxes() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # `fonts` tells of them in one line
        yield


def save(figure: Any, path: Path) -> Path:
    """Replace the file by a figure as PNG, creating the folder, and close it; return `path`."""
    with _without_warnings_of_boxes(), atomic_file(path) as part:
        figure.savefig(part)
    plt.close(figure)
    return path


def data_uri(figure: Any) -> str:
    """Encode a figure as an SVG in a `data:` address, for a page that holds its own pictures."""
    buffer = io.BytesIO()
    with plt.rc_context(_STYLE), _without_warnings_of_boxes():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axis in figure.axes:  # the layout solver's last bits vary, and ids within the SVG are hashes of them
            axis.set_position([round(value, 6) for value in axis.get_position().bounds], which="both")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
