"""Images of one molecule in one orientation, as the simulated microscope counts them: the material of both lessons."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.detector import count_electrons
from tiltwise.simulate.microscope import optics_of, particle_contrast
from tiltwise.simulate.potential import scatterer_from_atoms
from tiltwise.simulate.specimen import procedural_molecule

PIXEL_SIZE, SIZE, EXPOSURE = 4.0, 96, 3.0  # Å, px, e⁻/Å²
_SPECIMEN = SpecimenParams(molecular_weight=4e5, diameter=120.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class View:
    contrast: torch.Tensor
    """(y, x) what a camera without noise would see, relative to the mean."""

    def images(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """(image, y, x) contrast as counted, noise and all."""
        mean = EXPOSURE * PIXEL_SIZE**2
        return np.stack([count_electrons(self.contrast, EXPOSURE, PIXEL_SIZE, rng) / mean - 1 for _ in range(number)])


def view_of_a_molecule() -> View:
    """The procedural molecule at 2 µm underfocus, untilted, undamaged but for its own exposure."""
    exact = ErrorParams(shift_step=0, tilt_angle=0, tilt_axis_angle=0, tilt_axis_jitter=0, defocus=0, astigmatism=0)
    params = SimulateParams(
        pixel_size=PIXEL_SIZE, image_size=SIZE, tilt_max=3.0, defocus_min=2e4, defocus_max=2e4 + 1e-3,
        motion_b_factor=100.0, handedness=1, specimen=_SPECIMEN, errors=exact,
    )  # fmt: skip
    scatterer = scatterer_from_atoms(procedural_molecule(_SPECIMEN, 0))
    series = replace(acquire(params, "TS_01", np.random.default_rng(0)), pre_exposure=np.zeros(3))
    one = Particles(
        tilt_series=np.array(["TS_01"]),
        position=np.zeros((1, 3)),
        rotation=Rotation.identity(1),
        score=np.ones(1),
        half_set=np.ones(1, dtype=int),
        region=np.full(1, -1),
    )
    contrast = particle_contrast(optics_of(scatterer, series, params), scatterer, series, one, 1)
    return View(contrast=contrast)
