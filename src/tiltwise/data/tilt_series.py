"""A tilt series: its images and everything known of them so far."""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.deformation import Deformation
from tiltwise.data.optics import Ctf, Optics


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltGeometry:
    """image = T(image centre) · T(shift) · Rz(tilt_axis_angle) · Ry(tilt_angle) · Rx(x_tilt) · point."""

    tilt_angle: np.ndarray
    """(tilt,) degrees."""
    tilt_axis_angle: np.ndarray
    """(tilt,) degrees from image y, counter-clockwise positive with row 0 at the bottom."""
    x_tilt: np.ndarray
    """(tilt,) degrees."""
    shift: np.ndarray
    """(tilt, 2) x, y of the tomogram centre in the image, relative to the image centre, Å."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GoldBeads:
    """Gold beads that were followed over the tilts."""

    position: np.ndarray
    """(bead, 3) Å from the tomogram centre."""
    diameter: float
    """Å."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltSeries:
    name: str
    """Name of the series, unique in a project."""
    images: np.ndarray
    """(tilt, y, x) any numpy-like array, a memory map as a rule; the camera's sign, density is dark."""
    image_names: tuple[str, ...]
    """(tilt,) where each image lies, as RELION writes it: 000001@path/stack.mrc."""
    pixel_size: float
    """Å."""
    optics: Optics
    """Voltage, Cs, amplitude contrast."""
    stage_tilt_angle: np.ndarray
    """(tilt,) nominal angle of the stage, degrees."""
    nominal_tilt_axis_angle: float | None
    """Tilt axis as the microscope states it, degrees; None if it does not."""
    exposure: np.ndarray
    """(tilt,) exposure of each image, e⁻/Å²."""
    pre_exposure: np.ndarray
    """(tilt,) exposure before each image, the image itself excluded, e⁻/Å²."""
    acquisition_order: np.ndarray
    """(tilt,) 0 for the image taken first."""
    nominal_defocus: np.ndarray | None = None
    """(tilt,) target defocus, Å, underfocus positive; None if not stated."""
    use: np.ndarray
    """(tilt,) bool; an excluded tilt keeps its row."""
    why_not: tuple[str, ...]
    """(tilt,) reason of the exclusion, empty where the tilt is used."""
    geometry: TiltGeometry | None = None
    """Alignment; None until aligned."""
    deformation: Deformation | None = None
    """How the images differ from the geometry's rigid projections; None where they do not, or nobody looked."""
    specimen_thickness: float | None = None
    """Of the slab that the specimen fills, level and about z = 0 in the geometry, Å; None where none was looked for."""
    beads: GoldBeads | None = None
    """In the frame of the geometry; None where none were looked for or found."""
    ctf: Ctf | None = None
    """Contrast transfer; None until fitted, or when it could not be determined."""
    defocus_handedness: int | None = None
    """h in defocus(point) = defocus_i + h · depth: +1, -1, or None until estimated."""
    movies: tuple | None = None
    """(tilt,) movies, each (frame, y, x) whose frames are decoded as it is iterated, None where a tilt has none; None
    where images are all there is. Images are zeros until their motion is corrected."""
    half_images: tuple[np.ndarray, np.ndarray] | None = None
    """(tilt, y, x) sums of the odd and of the even frames; the images are the sum of both. None without frames."""
    half_image_names: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    """(tilt,) where each of the half images lies, odd and even; None until they are on disk."""

    @property
    def number(self) -> int:
        """Number of tilts, excluded ones counted."""
        return len(self.stage_tilt_angle)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(y, x), px."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])
