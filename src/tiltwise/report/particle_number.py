"""The plot of resolution against the number of particles."""

from typing import TYPE_CHECKING

import numpy as np

from tiltwise.report.drawing import BLUE, GRAY, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn
def draw_particle_number(
    particles: np.ndarray, resolution: np.ndarray, b_factor: float | None, nyquist: float
) -> "Figure":
    """1/d² over the number of particles (logarithmic), the line of the B-factor (Å²) and the pixel's limit (Å)."""
    drawing, (axis,) = new_figure(5.4, 3.4)
    inverse = 1 / resolution**2
    numbers = np.unique(particles)
    axis.semilogx(particles, inverse, "o", color=BLUE, label="random subsets")
    if b_factor is not None:
        means = np.array([inverse[particles == n].mean() for n in numbers])
        line = 2 / b_factor * np.log(numbers)
        axis.semilogx(numbers, line + (means - line).mean(), color=GRAY, label=f"B = {b_factor:.0f} Å²")
    axis.axhline(1 / nyquist**2, color=GRAY, linestyle="--", linewidth=0.8)
    axis.annotate("Nyquist", (particles.min(), 1 / nyquist**2), (0, 3), textcoords="offset points")
    ticks = np.linspace(0, max(inverse.max(), 1 / nyquist**2), 6)[1:]
    axis.set_yticks(ticks, [f"{1 / np.sqrt(tick):.1f}" for tick in ticks])
    axis.set_ylim(0, 1.08 * ticks[-1])
    axis.set_xticks(numbers, [f"{number:.0f}" for number in numbers])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("particles")
    axis.set_ylabel("resolution (Å), spaced by 1/d²")
    axis.legend(loc="lower right")
    return drawing
