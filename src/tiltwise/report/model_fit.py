"""The plot of a map's correlation with an atomic model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tiltwise.report.curves import spacing_ticks
from tiltwise.report.drawing import BLUE, GRAY, GREEN, ORANGE, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn
def draw_model_fit(
    frequency: Sequence[float], model: Sequence[float], own_mask: Sequence[float], expected: Sequence[float]
) -> "Figure":
    """FSC of map and model within the project's mask and the model's own, and what the half maps let expect of a
    perfect model, over frequency (1/Å)."""
    drawing, (axis,) = new_figure(5.4, 3.4)
    axis.plot(frequency, model, color=BLUE, label="map and model")
    axis.plot(frequency, own_mask, color=GREEN, label="the same, in the model's own mask")
    axis.plot(frequency, expected, color=ORANGE, label="perfect model, by the half maps")
    axis.axhline(0.5, color=GRAY, linewidth=0.8, linestyle="--")
    axis.axhline(0, color=GRAY, linewidth=0.5)
    axis.set_ylim(-0.15, 1.03)
    axis.set_xlim(0, frequency[-1])
    spacing_ticks(axis, np.asarray(frequency))
    axis.set_ylabel("Fourier shell correlation")
    axis.legend()
    return drawing
