"""The straightened images of a slab: each image transformed once, then filtered and resampled for each depth."""

import numpy as np
import torch

from tiltwise.data.progress import Progress
from tiltwise.ops.ctf import astigmatic_defocus, ctf
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.exposure import exposure_amplitude
from tiltwise.ops.geometry import defocus_at_depth
from tiltwise.ops.tomogram.bead_erasing import erase_beads
from tiltwise.ops.tomogram.image_spectra import image_spectra
from tiltwise.ops.tomogram.slice_weights import slice_weight
from tiltwise.ops.tomogram.straight_deformation import plane_displacement
from tiltwise.ops.tomogram.straight_projection import plane_affine, resample, spline_prefilter, stored_rows
from tiltwise.stages.reconstruct.setup import Setup

_HIGH_PASS = 400.0
"""Å, sd of the Gaussian whose blur is taken off each image: uneven ice and illumination, not specimen."""


def straight_images(setup: Setup, rows: slice, weighted: bool, device: str, progress: Progress) -> list[torch.Tensor]:
    """(column, row) stores of all planes for the rows of a slab; weighted for back projection, or not.

    One of the images, or one of the odd and one of the even frames, whose mean it is. Density is positive. Values are
    those of images of mean 0 and sd 1 before the filters.
    """
    shape = int(setup.planes.start[-1]), stored_rows(setup.geometry, rows.stop - rows.start)
    stores = [torch.empty(shape, device=device) for _ in range(setup.parts)]
    filters = _Filters(setup, weighted, device)
    for t, i in enumerate(setup.tilts):
        spectra, factor = image_spectra(_read_parts(setup, i, device), setup.grid, _HIGH_PASS), filters.of_tilt(t)
        spectra = [spectrum * factor for spectrum in spectra]
        first, number = setup.planes.of_tilt[t]
        for plane in range(first, first + number):
            if plane == first or filters.by_depth:
                transfer = filters.transfer(t, float(setup.planes.depth[plane]))
                coefficients = [torch.fft.irfft2(spectrum * transfer, s=setup.grid.cropped) for spectrum in spectra]
            _straighten(setup, plane, rows.start, coefficients, stores)
        progress((t + 1) / len(setup.tilts), "preparing images")
    return stores


def _straighten(
    setup: Setup, plane: int, first_row: int, coefficients: list[torch.Tensor], stores: list[torch.Tensor]
) -> None:
    """Fill a plane of each store from the spline coefficients of its image, bent back where the specimen deforms."""
    geometry, planes, grid = setup.geometry, setup.planes, setup.grid
    columns, displacement = slice(planes.start[plane], planes.start[plane + 1]), None
    if setup.tilt_series.deformation is not None:
        row, shape = int(setup.tilts[planes.tilt[plane]]), tuple(stores[0][columns].shape)
        displacement = plane_displacement(setup.tilt_series, row, (geometry, planes), plane, first_row, shape)
        displacement = displacement / np.array(grid.spacing)
    affine = plane_affine(geometry, planes, plane, first_row, (grid.spacing, grid.centre))
    for own, store in zip(coefficients, stores, strict=True):
        resample(own, affine, store[columns], displacement)


def _read_parts(setup: Setup, i: int, device: str) -> list[torch.Tensor]:
    """(y, x) float32 of row i of the tilt series, or of its odd and its even frames: the one place where images are
    read, and beads are erased."""
    series = setup.tilt_series
    stacks = [series.images] if setup.parts == 1 else series.half_images
    images = [torch.as_tensor(np.array(stack[i], dtype=np.float32), device=device) for stack in stacks]
    if not setup.params.erase_beads:
        return images
    place, _ = specimen_in_images(series, series.beads.position, [i])
    return [erase_beads(image, place[0], series.beads.diameter, series.pixel_size) for image in images]


class _Filters:
    """The real filters of each tilt and depth on the grid of the cropped transform."""

    def __init__(self, setup: Setup, weighted: bool, device: str):
        self._setup, self._weighted = setup, weighted
        self._axes = setup.grid.frequencies(device)
        ky, kx = self._axes
        self._frequency = (kx**2 + ky[:, None] ** 2).sqrt()
        self._azimuth = torch.atan2(ky[:, None], kx)
        self._prefilter = spline_prefilter(setup.grid.cropped, device)
        self._table = torch.linspace(0, float(self._frequency[:, -1].max()), 4 * max(setup.grid.cropped), device=device)
        self.by_depth = setup.correct and setup.tilt_series.defocus_handedness is not None
        self._wiener = setup.correct and setup.params.ctf_correction == "wiener"
        self._power = self._powers()
        total = sum(self._exposure(t, self._table) ** 2 for t in range(len(setup.tilts)))
        self._exposure_rms = (total / len(setup.tilts)).sqrt()

    def of_tilt(self, t: int) -> torch.Tensor:
        """What is the same at all depths: spline prefilter, exposure and the weight of the slice."""
        setup = self._setup
        factor = self._prefilter * self._exposure(t, self._frequency)
        if not self._wiener:
            factor = factor / self._at_frequency(self._exposure_rms)
        if not self._weighted:
            return factor
        angles, axis = setup.tilt_series.geometry.tilt_angle, setup.tilt_series.geometry.tilt_axis_angle
        thickness = setup.shape[0] * setup.voxel_size
        overlap = slice_weight(self._axes, t, angles[setup.tilts], float(axis[setup.tilts[t]]), self._power, thickness)
        constant = setup.params.noise_to_signal if self._wiener else 0.0
        return factor * (setup.voxel_size / thickness / (overlap + constant))

    def transfer(self, t: int, depth: float) -> torch.Tensor | float:
        """sign(CTF) or CTF of a tilt at a depth in Å; -1 where it is not corrected, since density is dark."""
        if not self._setup.correct:
            return -1.0
        value = self._ctf(t, depth, self._frequency, self._azimuth)
        return value if self._wiener else torch.sign(value)

    def _ctf(self, t: int, depth: float, frequency: torch.Tensor, azimuth: torch.Tensor | None) -> torch.Tensor:
        """Without an azimuth, that of the mean defocus."""
        series, i = self._setup.tilt_series, self._setup.tilts[t]
        ends = torch.tensor([float(series.ctf.defocus_u[i]), float(series.ctf.defocus_v[i])])
        handedness = series.defocus_handedness or 0
        u, v = defocus_at_depth(ends, handedness, torch.full((2, 1), depth)).flatten()
        angle = torch.tensor(float(series.ctf.astigmatism_angle[i]))
        defocus = (u + v) / 2 if azimuth is None else astigmatic_defocus(azimuth, u, v, angle)
        return ctf(frequency, defocus.to(frequency.device), series.optics, float(series.ctf.phase_shift[i]))

    def _exposure(self, t: int, frequency: torch.Tensor) -> torch.Tensor:
        """q of the tilt, or 1."""
        series, i = self._setup.tilt_series, self._setup.tilts[t]
        if not self._setup.params.exposure_weighting:
            return torch.ones_like(frequency)
        before, exposure = (
            torch.tensor(float(a[i]), device=frequency.device) for a in (series.pre_exposure, series.exposure)
        )
        return exposure_amplitude(frequency, before, exposure, series.optics.voltage)

    def _powers(self) -> torch.Tensor:
        """(tilt, step) squared transfer of each tilt at the middle depth, for the overlap of slices; else 1."""
        number = len(self._setup.tilts)
        if not self._wiener:
            return torch.ones(number, 2, device=self._table.device)
        rows = [self._ctf(t, 0.0, self._table, None) * self._exposure(t, self._table) for t in range(number)]
        return torch.stack(rows) ** 2

    def _at_frequency(self, curve: torch.Tensor) -> torch.Tensor:
        """A curve of the table, read at the nearest step of the grid."""
        step = self._table[1]
        return curve[(self._frequency / step).round().long().clamp_max(len(curve) - 1)]
