"""The average of a few pieces of a filament under helical symmetry is the helix, from one tilt series."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import particle_scene
import torch
from particle_scene import DIAMETER, PIXEL
from scipy.spatial.transform import Rotation

from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.particles.half_maps import average_particles

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from test_symmetry import RISE, TWIST, helix_blobs, helix_map  # noqa: E402

BOX = 32


def filament_pieces():
    """Four straight pieces of the helix in one noisy tilt series, their axes in its plane, as filaments lie."""
    rng = np.random.default_rng(0)
    series = particle_scene.tilts_of("TS_1", rng)
    position = np.array([[-220.0, -220, 0], [220, -220, 20], [-220, 220, -20], [220, 220, 0]])
    lying = Rotation.from_euler(
        "zyz", [[a, 90, b] for a, b in zip((10, 75, 140, 200), (0, 80, 200, 300), strict=True)], degrees=True
    )
    images = particle_scene.project_blobs(series, position, lying, helix_blobs(-7, 6))
    series = replace(series, images=particle_scene.with_noise(images, 1.5, rng))
    particles = particle_scene.put_together([("TS_1", position, lying)])
    return {"TS_1": series}, replace(particles, half_set=np.array([1, 2, 1, 2]))


def test_few_pieces_make_the_helix():
    """Nine places in each of four pieces: as much signal as 36 pieces without the symmetry, and noise that is shared by
    overlapping boxes, so at least three times the ratio of signal to noise. The other hand's twist only smears."""
    series, particles = filament_pieces()
    z, y, x = np.meshgrid(*[(np.arange(BOX) - BOX // 2) * PIXEL] * 3, indexing="ij")
    mask = torch.as_tensor(np.clip((75 - np.hypot(x, y)) / 16, 0, 1) * np.clip((60 - np.abs(z)) / 16, 0, 1))
    truth = helix_map(BOX, PIXEL, particle_scene.SIGMA)

    def correlations(symmetry):
        halves = average_particles(
            series, particles, box_size=BOX, particle_diameter=DIAMETER, symmetry=symmetry, weighting="expected"
        )
        average = torch.as_tensor(halves.half1.data + halves.half2.data)
        return fourier_shell_correlation(average * mask, truth * mask)[2:7].numpy()

    single, wrong, helical = (correlations(name) for name in ("C1", f"H({RISE},{-TWIST},9)", f"H({RISE},{TWIST},9)"))
    ratio = helical**2 / (1 - helical**2) / (single**2 / (1 - single**2))
    assert helical.min() > 0.9 and ratio.mean() > 3 and wrong[3:].max() < 0.7
    assert np.allclose(correlations(f"H({RISE},{TWIST},1)"), single, atol=1e-6)
