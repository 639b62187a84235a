"""The average of pieces of a filament under helical symmetry is the helix, and `refine` finds their poses."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import particle_scene
import torch
from particle_scene import DIAMETER, PIXEL
from scipy.spatial.transform import Rotation

from tiltwise.data.volume import Volume
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine import refine

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from test_symmetry import RISE, TWIST, helix_blobs, helix_map  # noqa: E402

BOX = 32
POSITION = np.array([[-220.0, -220, 0], [220, -220, 20], [-220, 220, -20], [220, 220, 0]])
LYING = Rotation.from_euler(
    "zyz", [[a, 90, b] for a, b in zip((10, 75, 140, 200), (0, 80, 200, 300), strict=True)], degrees=True
)
SYMMETRY = f"H({RISE},{TWIST},9)"


def filament_pieces(series=1, noise=1.5):
    """Four straight pieces of the helix in each noisy tilt series, their axes in its plane, as filaments lie."""
    rng, made, parts = np.random.default_rng(0), {}, []
    for number in range(series):
        name, turned = f"TS_{number + 1}", Rotation.from_euler("z", 33 * number, degrees=True)
        empty = particle_scene.tilts_of(name, rng)
        images = particle_scene.project_blobs(empty, POSITION, turned * LYING, helix_blobs(-7, 6))
        made[name] = replace(empty, images=particle_scene.with_noise(images, noise, rng))
        parts.append((name, POSITION, turned * LYING))
    particles = particle_scene.put_together(parts)
    return made, replace(particles, half_set=1 + np.arange(len(particles)) % 2)


def against_truth(halves):
    """(5,) FSC of the mean of the halves with the helix, in its inner part, at spacings of 128 to 43 Å."""
    z, y, x = np.meshgrid(*[(np.arange(BOX) - BOX // 2) * PIXEL] * 3, indexing="ij")
    mask = torch.as_tensor(np.clip((75 - np.hypot(x, y)) / 16, 0, 1) * np.clip((60 - np.abs(z)) / 16, 0, 1))
    average = torch.as_tensor(halves.half1.data + halves.half2.data)
    truth = helix_map(BOX, PIXEL, particle_scene.SIGMA)
    return fourier_shell_correlation(average * mask, truth * mask)[2:7].numpy()


def test_few_pieces_make_the_helix():
    """Nine places in each of four pieces: as much signal as 36 pieces without the symmetry, and noise that is shared by
    overlapping boxes, so at least three times the ratio of signal to noise. The other hand's twist only smears."""
    series, particles = filament_pieces()

    def correlations(symmetry):
        halves = average_particles(
            series, particles, box_size=BOX, particle_diameter=DIAMETER, symmetry=symmetry, weighting="expected"
        )
        return against_truth(halves)

    single, wrong, helical = (correlations(name) for name in ("C1", f"H({RISE},{-TWIST},9)", SYMMETRY))
    ratio = helical**2 / (1 - helical**2) / (single**2 / (1 - single**2))
    assert helical.min() > 0.9 and ratio.mean() > 3 and wrong[3:].max() < 0.7
    assert np.allclose(correlations(f"H({RISE},{TWIST},1)"), single, atol=1e-6)


def test_refine_finds_the_poses_of_pieces_and_the_helix():
    """Pieces are displaced across and turned about their axes and off them, the first reference is the helix at 60 Å.
    A helix may screw along itself as a whole, which no image tells: that is taken off the turns about the axis."""
    series, true = filament_pieces(series=2, noise=0.8)
    rng, number = np.random.default_rng(1), len(true)
    off = Rotation.from_euler("zy", np.column_stack([rng.uniform(-40, 40, number), rng.uniform(-8, 8, number)]), True)
    start = replace(true, position=true.position + rng.normal(0, 5, (number, 3)), rotation=true.rotation * off)
    first = Volume(data=helix_map(BOX, PIXEL, 20.0).numpy(), voxel_size=PIXEL)
    params = RefineParams(
        box_size=BOX,
        particle_diameter=DIAMETER,
        symmetry=SYMMETRY,
        reference_lowpass=60.0,
        search_cone=15.0,
        search_shift=12.0,
        iterations=2,
        refine_tilt_shifts=False,
    )
    result = refine(series, start, first, params)
    found, error = result.particles, true.rotation.inv() * result.particles.rotation
    assert len(found) == number and result.half_maps.symmetry == SYMMETRY
    moved = true.rotation.inv().apply(found.position - true.position)
    lean = np.degrees(np.arccos(error.as_matrix()[:, 2, 2]))
    about = np.degrees(np.arctan2(error.as_matrix()[:, 1, 0], error.as_matrix()[:, 0, 0]))
    screw = about - TWIST / RISE * moved[:, 2]  # 0 for every operation of the helix
    screw = np.angle(np.exp(1j * np.radians(screw)) / np.exp(1j * np.radians(screw)).mean(), deg=True)
    assert np.median(lean) < 3 and np.median(np.abs(screw)) < 5
    assert np.median(np.hypot(moved[:, 0], moved[:, 1])) < 3
    assert against_truth(result.half_maps).min() > 0.9
