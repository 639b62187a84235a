"""How figures look, and how they enter a page or a file. matplotlib is loaded only when something is drawn."""

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from tiltwise.report.page import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

BLUE, ORANGE, GREEN, RED, GRAY = "#3f7fd6", "#d9822b", "#2f9e74", "#cf4a5d", "#8b919b"
"""Read well on white and on black."""
_INK = "#1e2226"
"""Lines and letters; in a page they take the colour of its text."""

_STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "tiltwise",
    "savefig.transparent": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


def drawn(function: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Draw a figure in our style, whatever style the caller's session has."""

    @functools.wraps(function)
    def styled(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return function(*args, **kwargs)

    return styled


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> "tuple[Figure, list[Axes]]":
    """A figure of so many inches and its axes, row by row."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    axes = drawing.subplots(rows, columns, squeeze=False)
    return drawing, list(axes.ravel())


def as_svg(drawing: "Figure") -> Html:
    """The figure as markup: text stays text, ink becomes the colour of the page's text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return Html(text.replace(_INK, "currentColor"))


def save_png(drawing: "Figure", path: Path) -> None:
    """The figure as a PNG file on white."""
    drawing.savefig(path, format="png", dpi=130, transparent=False, facecolor="white", metadata={"Software": None})
