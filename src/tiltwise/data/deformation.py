"""How images differ from those of a rigid specimen under a rigid projection: smooth displacements of what they show."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleDeformation:
    """Displacement Σ_j c_j(N) p_j(X / scale) of a specimen point X after exposure N: quadratic in x, y, z, or cubic.

    What tracks of beads tell is quadratic; particles tell the part of third order as well."""

    exposure: np.ndarray
    """(knot,) accumulated exposure at which the coefficients are given, rising, e⁻/Å²; cubic splines between."""
    coefficient: np.ndarray
    """(knot, 10 or 20, 3) Å along x, y, z, of the monomials 1, x, y, z, x², y², z², xy, xz, yz; where there are 20,
    then of x³, y³, z³, x²y, x²z, xy², y²z, xz², yz², xyz."""
    scale: float
    """Length by which x, y, z are divided, Å."""
    magnification: np.ndarray
    """(tilt,) factor, about 1, by which image positions about the image centre are scaled."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageWarp:
    """w_i(r): what all else places at image position r of tilt i appears at r + w_i(r)."""

    coefficient: np.ndarray
    """(tilt, y, x, 2) control values along image x, y, Å, of uniform cubic B-splines over the image."""
    extent: tuple[float, float]
    """Sides of the image along x, y, Å; beyond them the warp stays as it is at the edge."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Deformation:
    """u = r + w_i(r), r = m_i (R_i (X + D(X, N_i)) + shift_i): the specimen deforms, the image is scaled, then warped.

    N_i is the exposure up to the middle of tilt i."""

    sample: SampleDeformation | None = None
    """D and m; None where the specimen is rigid and m is 1."""
    image: ImageWarp | None = None
    """w; None where there is none."""
