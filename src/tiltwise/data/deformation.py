"""How the specimen changes its shape while it is exposed."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleDeformation:
    """Displacement Σ_j c_j(N) p_j(X / scale) of a specimen point X after exposure N: quadratic in x, y, z."""

    exposure: np.ndarray
    """(knot,) accumulated exposure at which the coefficients are given, rising, e⁻/Å²; cubic splines between."""
    coefficient: np.ndarray
    """(knot, 10, 3) Å along x, y, z, of the monomials 1, x, y, z, x², y², z², xy, xz, yz."""
    scale: float
    """Length by which x, y, z are divided, Å."""
    magnification: np.ndarray
    """(tilt,) factor, about 1, by which image positions about the image centre are scaled."""
