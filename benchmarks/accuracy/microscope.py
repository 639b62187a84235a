"""The simulated microscope against theory: multislice, the notes' signal-to-noise, counts, and defocus of points."""

from dataclasses import replace

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.params.microscope import CameraParams, LensParams, MicroscopeParams, MotionParams
from tiltwise.params.simulate import ErrorParams, SimulateParams
from tiltwise.project.threads import use_threads
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.image_scene import image_tilt
from tiltwise.simulate.proof import (
    crowd_of_balls,
    linear_against_multislice,
    one_body,
    particle_snr,
    point_defocus,
    point_population,
    protein_ball,
)
from tiltwise.simulate.scene import IceSlab, Scene

EXACT = ErrorParams(
    shift_step=0.0, tilt_angle=0.0, tilt_axis_angle=0.0, tilt_axis_jitter=0.0, defocus=0.0, astigmatism=0.0
)
COHERENT = LensParams(energy_spread=0.0, convergence=0.0, mean_free_path=3150.0)
THICKNESS_A = (300, 1000, 2000, 3000)
"""Of the crowds that are imaged both ways; the figure of the benchmark is that of 2000 Å."""
CROWD, MASS, WIDE = 0.25, 1e5, 400.0
MARGIN = 250.0  # Å around the crowd, for what defocus spreads: 30000 Å · λ / 3 Å is 197 Å
SNR = {  # notes on physics, 4.4: (mass Da, pixel Å) -> variance signal-to-noise behind 100 and 200 nm of ice
    (3.3e6, 5.0): (0.13, 0.10),
    (3.3e6, 10.0): (0.28, 0.20),
    (4.8e5, 5.0): (0.064, 0.046),
    (4.8e5, 10.0): (0.20, 0.16),
    (1.5e5, 5.0): (0.057, 0.032),
    (1.5e5, 10.0): (0.10, 0.07),
}


def exact_series(size: int, pixel_size: float, tilts: tuple[float, float], defocus: float, hand: int = 1) -> TiltSeries:
    """Tilts up to tilts[0] in steps of tilts[1], about image y, exactly as stated, 3 e⁻/Å² each."""
    params = SimulateParams(
        pixel_size=pixel_size, image_size=size, tilt_max=tilts[0], tilt_step=tilts[1], nominal_tilt_axis_angle=0.0,
        errors=EXACT, handedness=hand,
    )  # fmt: skip
    series = acquire(params, "TS_01", np.random.default_rng(0))
    tilts_defocus = np.full(series.number, defocus)
    return replace(series, ctf=replace(series.ctf, defocus_u=tilts_defocus, defocus_v=tilts_defocus))


def clean(size: int, pixel_size: float) -> MicroscopeParams:
    """A microscope that blurs nothing."""
    camera = CameraParams(pixel_size=pixel_size, image_size=size)
    return MicroscopeParams(lens=COHERENT, camera=camera, motion=MotionParams(b_factor=0.0))


def linear_vs_multislice() -> dict[int, float]:
    """By thickness, Å: the spacing, Å, at which linear imaging of a crowd of proteins falls below 0.9 of multislice."""
    pixel_size = 1.5
    size = 2 * round((WIDE / 2 + MARGIN) / pixel_size)
    series = exact_series(size, pixel_size, (30.0, 30.0), 30000.0)
    found = {}
    for thickness in THICKNESS_A:
        crowd = crowd_of_balls(MASS, CROWD, (WIDE, WIDE, float(thickness)), np.random.default_rng(1))
        agreement = linear_against_multislice(crowd, series, 1, clean(size, pixel_size), width=12)
        found[thickness] = round(agreement.resolution(0.9), 2)
    return found


def snr_ratios() -> dict[str, list[float]]:
    """Ours over the table's, mean of four spheres that lie between four pixels, at 100 and 200 nm."""
    ratios = {}
    for (mass, pixel_size), table in SNR.items():
        size = 2 * round(500 / pixel_size)
        series, params = exact_series(size, pixel_size, (30.0, 30.0), 30000.0), clean(size, pixel_size)
        found = np.zeros(2)
        for seed in range(4):
            scatterer, radius = protein_ball(mass, np.random.default_rng(seed))
            body = one_body(scatterer, np.array([pixel_size / 2, pixel_size / 2, 0.0]), radius)
            found += [particle_snr(body, series, 1, params, path=path, dqe=0.8) / 4 for path in (1000.0, 2000.0)]
        ratios[f"{mass / 1e3:g} kDa at {pixel_size:g} Å"] = np.round(found / table, 2).tolist()
    return ratios


def counts_slope_error() -> float:
    """Relative error of the slope of ln(mean count) against 1 / cos θ, which is -thickness / mean free path."""
    size, pixel_size, thickness = 256, 4.0, 2000.0
    series = exact_series(size, pixel_size, (60.0, 10.0), 30000.0)
    series = replace(series, images=np.broadcast_to(np.int16(0), series.images.shape))
    ice = IceSlab(thickness=thickness, incline=(0.0, 0.0), curvature=0.0)
    scene = Scene(populations=(point_population(np.zeros((1, 3))),), ice=ice, film=None)
    params = clean(size, pixel_size)
    mean = [image_tilt(scene, series, tilt, params, (0,)).mean() for tilt in range(series.number)]
    slope, _ = np.polyfit(1 / np.cos(np.radians(series.stage_tilt_angle)), np.log(mean), 1)
    return abs(slope * params.lens.mean_free_path / -thickness - 1)


def point_defocus_error() -> float:
    """Largest |fitted - (defocus + h · depth)|, Å, over both hands, three tilts, and points up to 1500 Å off."""
    errors = []
    for hand in (1, -1):
        series = exact_series(288, 2.0, (30.0, 30.0), 20000.0, hand)
        for tilt, depth in ((0, 1500.0), (1, 0.0), (2, -1200.0)):
            errors.append(point_defocus(series, tilt, depth, COHERENT) - (20000.0 + hand * depth))
    return float(np.abs(errors).max())


def run() -> dict:
    use_threads(1)
    parting, ratios = linear_vs_multislice(), snr_ratios()
    every = np.array(list(ratios.values()))
    return {
        "linear_vs_multislice_A": parting[2000],
        "linear_vs_multislice_by_thickness_A": {str(key): value for key, value in parting.items()},
        "snr_table_worst_ratio": round(float(np.maximum(every, 1 / every).max()), 2),
        "snr_ratios": ratios,
        "counts_slope_error": round(counts_slope_error(), 4),
        "point_defocus_error_A": round(point_defocus_error(), 1),
    }
