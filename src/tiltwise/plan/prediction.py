"""What a schedule gives: the spectral signal-to-noise ratio of each tilt and of the average, on an absolute scale.

The transform of one particle's image has, per electron and Å², signal 2 γ λ F(k) CTF(k), damped by damage and blur,
and noise 1 / (D η DQE), to which the ice adds its own. In a mask of volume V, a tilt gives the average of N particles

    s(k) = N n_sym 4 (γ λ)² |F|² q² CTF² exp(-B k² / 2) / (ice + 1 / (D η DQE)) / (2 k V)

(a central slice of thickness 1 / V^(1/3) takes 1 / (2 k V^(1/3)) of a shell), and tilts add up, for that is what the
best weights make of them. The half maps' FSC is S / (S + 2), that to the truth √(S / (S + 1)): 0.143 and 0.5 at S =
1/3 (Rosenthal & Henderson 2003). F is over ice, not over vacuum.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.optics import Optics
from tiltwise.ops.ctf import ctf_phase, electron_wavelength
from tiltwise.params.plan import PlanParams
from tiltwise.plan.detectors import quantum_efficiency
from tiltwise.plan.dose import damage_amplitude
from tiltwise.plan.geometry import path_length
from tiltwise.plan.scattering import mask_volume, scattering_power
from tiltwise.plan.schedule import Schedule

RESOLVED = 1 / 3
"""S at which FSC between half maps is 0.143, and that to the truth 0.5."""
BAND = 3.0
"""Factor in the number of particles within which a prediction is to be trusted (docs/explanation/planner.md)."""
_REST_ENERGY = 510.99895  # keV
WATER_SCATTERING = 0.0311 * 3.04**2
"""|F|² of random water per volume, Å⁻¹: molecules per Å³ of ice times the square of their form factor at k = 0."""
SHELL = 1.5
"""Diameters in a box: the width of a shell is its inverse."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    frequency: np.ndarray
    """(k,) rising, 1/Å, up to the Nyquist frequency."""
    damage: np.ndarray
    """(tilt, k) amplitude that exposure leaves, in the order of acquisition."""
    transmission: np.ndarray
    """(tilt,) part of the electrons that the ice lets through, η."""
    transfer: np.ndarray
    """(tilt, k) mean CTF² over the particles and series."""
    image_ssnr: np.ndarray
    """(tilt, k) SSNR that each tilt gives to the average of one particle."""

    @property
    def ssnr(self) -> np.ndarray:
        """(k,) SSNR of the average per particle; that of n particles is n times as much."""
        return self.image_ssnr.sum(axis=0)


def predict(params: PlanParams, schedule: Schedule, power: np.ndarray | None = None) -> Prediction:
    """The prediction on the grid `frequencies`; power (k,) |F|² of the molecule there, Å², if known better."""
    k = frequencies(params)
    damage = damage_amplitude(schedule, k, params.voltage)
    path = path_length(schedule.tilt_angle, params.slab.thickness, params.slab.pretilt)
    eta = np.exp(-path / mean_free_path(params))
    transfer = mean_transfer(params, schedule.tilt_angle, k)
    blur = blur_variance(params, schedule)
    common = 4 * interaction(params.voltage) ** 2 * damage**2 * transfer
    common = common * np.exp(-params.budget.b_factor * k**2 / 2)
    ice = common * WATER_SCATTERING * params.slab.ice_structure * path[:, None]
    shot = 1 / ((schedule.exposure * eta)[:, None] * quantum_efficiency(params.detector, k, params.pixel_size))
    signal = common * (scattering_power(params.target, k) if power is None else power)
    signal = signal * np.exp(-4 * np.pi**2 * k**2 * blur[:, None] - depth_of_field(params, k))
    slices = symmetry_order(params.target.symmetry) / (2 * k * mask_volume(params.target))
    return Prediction(
        frequency=k, damage=damage, transmission=eta, transfer=transfer, image_ssnr=signal / (ice + shot) * slices
    )


def frequencies(params: PlanParams) -> np.ndarray:
    """(400,) 1/Å, from one over the diameter to Nyquist."""
    return np.linspace(1 / params.target.diameter, 1 / (2 * params.pixel_size), 400)


def resolution(prediction: Prediction, particles: float) -> float:
    """Spacing, Å, at which the SSNR of so many particles first falls below 1/3 beyond its best; infinite if never
    above."""
    k, ssnr = prediction.frequency, particles * prediction.ssnr
    peak = int(np.argmax(ssnr))
    below = np.flatnonzero(ssnr[peak:] < RESOLVED)
    if len(below) == 0:
        return float(1 / k[-1])
    j = peak + int(below[0])
    if j == peak:
        return math.inf
    low, high = np.log(ssnr[j - 1] / RESOLVED), np.log(ssnr[j] / RESOLVED)
    return float(1 / (k[j - 1] + low / (low - high) * (k[j] - k[j - 1])))


def particles_needed(prediction: Prediction, wanted: float) -> float:
    """Number of particles for a resolution, Å: the inverse of `resolution`; infinite beyond Nyquist."""
    k, ssnr = prediction.frequency, prediction.ssnr
    peak = int(np.argmax(ssnr))
    if 1 / wanted > k[-1] * (1 + 1e-9):
        return math.inf
    if 1 / wanted <= k[peak]:
        return float(RESOLVED / ssnr[peak])
    worst = np.minimum.accumulate(ssnr[peak:])
    return float(RESOLVED / np.exp(np.interp(1 / wanted, k[peak:], np.log(np.maximum(worst, 1e-300)))))


def half_map_fsc(prediction: Prediction, particles: float) -> np.ndarray:
    """(k,) expected FSC of two halves that hold so many particles together: S / (S + 2)."""
    ssnr = particles * prediction.ssnr
    return ssnr / (ssnr + 2)


def interaction(voltage: float) -> float:
    """γ λ, Å, of a voltage in kV: 0.031246 at 300."""
    return (1 + voltage / _REST_ENERGY) * electron_wavelength(voltage)


def mean_free_path(params: PlanParams) -> float:
    """Å in ice; where not given 3500 at 300 kV, 2900 at 200 kV, 2060 at 100 kV (measured values spread by 10 %)."""
    return params.slab.mean_free_path or {300.0: 3500.0, 200.0: 2900.0, 100.0: 2060.0}[params.voltage]


def symmetry_order(symmetry: str) -> int:
    """Number of rotations of a point group."""
    name = symmetry.strip().upper()
    fixed = {"T": 12, "O": 24, "I": 60}
    return fixed[name] if name in fixed else int(name[1:]) * (2 if name[0] == "D" else 1)


def mean_transfer(params: PlanParams, tilt_angle: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(tilt, k) mean of sin² χ = (1 - <cos 2χ>) / 2 over series, particles and a shell.

    Defocus is uniform over its range, over the depth of the slab, and over the width of the field, which tilting makes
    a depth; uniform spreads Δ damp cos 2χ by sinc(λ k² Δ), a shell of width w by sinc(2 λ k Δz w).
    """
    optics, slab, lens = params.optics, params.slab, lens_of(params)
    middle = middle_defocus(params)
    chi = ctf_phase(torch.as_tensor(k), torch.tensor(middle, dtype=torch.float64), lens).numpy()
    wavelength = electron_wavelength(params.voltage)
    tilt = np.radians(tilt_angle - slab.pretilt)[:, None]
    field = params.image_size * params.pixel_size * np.abs(np.sin(tilt))
    depth = (slab.thickness - 2 * slab.damage_layer) * np.cos(tilt)
    damping = np.sinc(wavelength * k**2 * (optics.defocus_max - optics.defocus_min))
    damping = damping * np.sinc(2 * wavelength * k * middle / (SHELL * params.target.diameter))
    damping = damping * np.sinc(wavelength * k**2 * field) * np.sinc(wavelength * k**2 * depth)
    return (1 - np.cos(2 * chi) * damping) / 2


def middle_defocus(params: PlanParams) -> float:
    """Å."""
    return (params.optics.defocus_min + params.optics.defocus_max) / 2


def lens_of(params: PlanParams) -> Optics:
    """The plan's lens as the CTF takes it."""
    return Optics(
        voltage=params.voltage,
        spherical_aberration=params.optics.spherical_aberration,
        amplitude_contrast=params.optics.amplitude_contrast,
    )


def depth_of_field(params: PlanParams, k: np.ndarray) -> np.ndarray:
    """(k,) exponent by which power is lost since one CTF is used for the whole depth of a particle, (π λ k²)² d² / 20.

    A ball of diameter d has the variance d² / 20 of depth; its phases differ by π λ k² times the depth.
    """
    return (np.pi * electron_wavelength(params.voltage) * k**2 * params.target.diameter) ** 2 / 20


def blur_variance(params: PlanParams, schedule: Schedule) -> np.ndarray:
    """(tilt,) variance per axis, Å², of what is wrong with a particle's place in each image.

    Position; orientation, 0.4 R² per rad² for a ball; alignment of the tilt, worse with less exposure; and the smear of
    continuous tilting within a frame.
    """
    budget, radius = params.budget, params.target.diameter / 2
    turned = 0.4 * radius**2 * np.radians(budget.rotation_error) ** 2
    fixed = budget.shift_error**2 + turned + budget.alignment_error**2 + budget.settling_error**2
    return fixed + budget.alignment_exposure_error / schedule.exposure + continuous_smear(params, schedule.tilt_angle)


def continuous_smear(params: PlanParams, tilt_angle: np.ndarray) -> np.ndarray:
    """(tilt,) variance per axis, Å², by the stage turning during a frame; 0 for schemes that stop.

    A point at x across the axis and depth z moves by (x sin θ + z cos θ) δ within a frame of δ rad: uniform, so a
    twelfth of its square, along one of two axes, so half of that. x is uniform over the field, z over the slab.
    """
    if params.tilting.scheme != "continuous":
        return np.zeros(len(tilt_angle))
    turn = np.radians(params.tilting.tilt_step / params.frames)
    tilt = np.radians(tilt_angle)
    field, depth = params.image_size * params.pixel_size, params.slab.thickness
    square = ((field * np.sin(tilt)) ** 2 + (depth * np.cos(tilt)) ** 2) / 12 + params.target.diameter**2 / 20
    return square * turn**2 / 24
