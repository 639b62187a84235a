"""The Cramér–Rao bound of the defoci of a simulated series: no unbiased estimate from its rings has a smaller variance.

The power of the contrast of tilt i at position u and frequency k, Å², is that of the slab and of the counted electrons
    mu = M_i(k) path_i · ½ [1 - c_i(k) cos 2χ(k, az; Δz_i(u, az))] + 1 / n_i,      c_i = sinc(λ k² path_i),
    Δz_i(u, az) = d_i + h · depth_i(u) + A cos 2az + B sin 2az.
A Gaussian field of slowly varying spectrum has one exponentially distributed power for each pair ±k of frequencies in
each area, so that its Fisher information (Whittle's) is
    I_ab = Σ_i ∫ dA ∫_{half plane} d²k ∂_a ln mu · ∂_b ln mu.
Unknown are d_i, A, B, two slopes of the slab and the logarithm of its thickness in c; all smooth spectra are taken as
known, and nothing of a patch enters. So it is a bound from below to what a fit of patches can reach.
"""

import math

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import ctf_phase, electron_wavelength
from tiltwise.ops.geometry import plane_depth, tilt_rotations
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.slab_field import electrons_reaching, matter_power

_POSITIONS, _AZIMUTHS, _FREQUENCIES = 12, 8, 400  # along a side, over 180 degrees, over the band
_SHARED = 5  # A, B, two slopes, log thickness


def defocus_bound(
    series: TiltSeries, params: SimulateParams, protein_fraction: float, resolution: tuple[float, float]
) -> np.ndarray:
    """(tilt,) Å, least standard deviation of each defocus; resolution is the coarsest and finest spacing used, Å."""
    tilts = series.number
    information = torch.zeros(tilts + _SHARED, tilts + _SHARED, dtype=torch.float64)
    depth, by_slope = _depth_and_slopes(series, params)
    for i in range(tilts):
        index = torch.tensor([i, *range(tilts, tilts + _SHARED)])
        own = tilt_information(series, params, protein_fraction, i, (depth[i], by_slope[i]), resolution)
        information[index[:, None], index] += own
    return torch.linalg.inv(information).diagonal()[:tilts].sqrt().numpy()


def tilt_information(
    series: TiltSeries,
    params: SimulateParams,
    protein_fraction: float,
    tilt: int,
    depth: tuple[torch.Tensor, torch.Tensor],
    resolution: tuple[float, float],
) -> torch.Tensor:
    """(6, 6) information of one tilt on its defocus, A, B, slopes and log thickness.

    depth (position,) and its derivatives by the slopes (position, 2), Å.
    """
    low, high = 1 / resolution[0], 1 / resolution[1]
    frequency = low + (high - low) * (torch.arange(_FREQUENCIES, dtype=torch.float64) + 0.5) / _FREQUENCIES
    azimuth = math.pi * (torch.arange(_AZIMUTHS, dtype=torch.float64) + 0.5) / _AZIMUTHS
    area = (params.image_size * params.pixel_size) ** 2 / _POSITIONS**2
    measure = area * frequency * (high - low) / _FREQUENCIES * math.pi / _AZIMUTHS
    half = float(series.ctf.defocus_u[tilt] - series.ctf.defocus_v[tilt]) / 2
    turn = torch.cos(2 * (azimuth - math.radians(float(series.ctf.astigmatism_angle[tilt]))))
    h = series.defocus_handedness
    defocus = float(series.ctf.mean_defocus[tilt]) + h * depth[0][:, None] + half * turn
    chi = ctf_phase(frequency, defocus[..., None], series.optics)
    electrons, path = electrons_reaching(series, params, tilt)
    signal = matter_power(series, params, protein_fraction, tilt, frequency) * path
    phase = math.pi * electron_wavelength(series.optics.voltage) * frequency**2
    layers = torch.sinc(phase * path / math.pi)
    power = 0.5 * signal * (1 - layers * torch.cos(2 * chi)) + 1 / electrons
    by_defocus = signal * layers * phase * torch.sin(2 * chi) / power  # position, azimuth, frequency
    by_thickness = -0.5 * signal * (torch.cos(phase * path) - layers) * torch.cos(2 * chi) / power
    ones = torch.ones_like(defocus)
    slopes = [h * depth[1][:, axis, None] * ones for axis in range(2)]
    factors = torch.stack([ones, ones * torch.cos(2 * azimuth), ones * torch.sin(2 * azimuth), *slopes]).flatten(1)
    squares = (by_defocus**2 @ measure).flatten()
    across = factors @ (by_defocus * by_thickness @ measure).flatten()
    last = (by_thickness**2 @ measure).sum()
    rows = torch.cat([(factors * squares) @ factors.T, across[:, None]], dim=1)
    return torch.cat([rows, torch.cat([across, last[None]])[None]])


def _depth_and_slopes(series: TiltSeries, params: SimulateParams) -> tuple[torch.Tensor, torch.Tensor]:
    """(tilt, position) depth of the level plane on a grid over each image, (tilt, position, 2) its derivatives; Å."""
    side = params.image_size * params.pixel_size
    axis = side * ((torch.arange(_POSITIONS, dtype=torch.float64) + 0.5) / _POSITIONS - 0.5)
    grid = torch.cartesian_prod(axis, axis)
    position = grid - torch.as_tensor(series.geometry.shift, dtype=torch.float64)[:, None]
    rotations, step = tilt_rotations(series.geometry), 1e-4

    def depth(slope_x: float, slope_y: float) -> torch.Tensor:
        normal = torch.tensor([slope_x, slope_y, 1.0], dtype=torch.float64)
        return plane_depth(rotations @ normal, 0.0, position)

    change = [depth(step, 0) - depth(-step, 0), depth(0, step) - depth(0, -step)]
    return depth(0, 0), torch.stack(change, dim=-1) / (2 * step)
