"""Straightened images of a deforming specimen: each sample is read where its point appears, to a known error."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_series import geometry, series

from tiltwise.data.deformation import Deformation, SampleDeformation
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.tomogram.straight_deformation import deformation_reach, plane_displacement
from tiltwise.ops.tomogram.straight_projection import lay_out_planes, plane_affine, straighten

VOXEL, SHAPE = 10.0, (40, 96, 80)
EXTENT = tuple(VOXEL * n for n in reversed(SHAPE))


@pytest.fixture
def bent():
    """20 Å along x at the corners of z² and yz, 1 % of magnification in the last tilt."""
    rigid = series(geometry())
    coefficient = np.zeros((2, 10, 3))
    coefficient[:, 6, 0] = coefficient[:, 9, 0] = 20.0
    magnification = np.ones(rigid.number)
    magnification[-1] = 1.01
    sample = SampleDeformation(
        exposure=np.array([0.0, 100.0]), coefficient=coefficient, scale=200.0, magnification=magnification
    )
    return replace(rigid, deformation=Deformation(sample=sample))


def test_a_sample_is_read_where_its_point_appears(bent):
    """At every node: affine place plus displacement is the place of the specimen point that the node stands for."""
    tilts = np.array([0, 3, bent.number - 1])
    rotations = tilt_rotations(bent.geometry)[torch.as_tensor(tilts)]
    layout = straighten(rotations, bent.geometry.shift[tilts], VOXEL, SHAPE, np.array([90.0, 400.0, 150.0]), 2)
    planes = lay_out_planes(layout)
    rng = np.random.default_rng(1)
    for plane in rng.choice(len(planes.tilt), 6, replace=False):
        t, size = planes.tilt[plane], (int(np.diff(planes.start)[plane]), 110)
        moved = plane_displacement(bent, tilts[t], (layout, planes), plane, 32, size)
        node = rng.integers(0, moved.shape[:2])
        assert (16 * (np.array(moved.shape[:2]) - 1) >= np.array(size) - 1).all()
        affine = plane_affine(layout, planes, plane, 32, ((1.0, 1.0), (0.0, 0.0)))
        rigid = affine @ [*(16.0 * node), 1]
        turned = np.array([*(rigid - bent.geometry.shift[tilts[t]]), planes.depth[plane]])
        place = specimen_in_images(bent, (rotations[t].numpy().T @ turned)[None], tilts[t : t + 1])[0][0, 0]
        assert np.allclose(rigid + moved[tuple(node)], place, atol=1e-8)


def test_the_reach_of_a_deformation_is_its_closed_form(bent):
    """Without magnification δ = R_xy D: with D = (20 z² + 20 yz) / 200² along x the largest D is in a corner, and
    ∂D/∂depth = 20 (2 z n_z + y n_z + z n_y) / 200², n the beam's direction, bends the image by that of R_xx, R_yx.
    Deeper by R_zx D."""
    rotations = tilt_rotations(bent.geometry).numpy()
    reach = deformation_reach(bent, np.arange(bent.number), rotations, EXTENT)
    y, z = EXTENT[1] / 2, EXTENT[2] / 2
    first, n = rotations[0], rotations[0][2]
    in_plane = np.hypot(*first[:2, 0])
    largest = 20 * (z * z + y * z) / 200**2
    assert reach.moved[0] == pytest.approx(largest * in_plane, rel=1e-6)
    assert reach.deeper[0] == pytest.approx(largest * abs(first[2, 0]), rel=1e-6) and first[2, 0] != 0
    corners = [abs(2 * a * n[2] + b * n[2] + a * n[1]) for a in (-z, z) for b in (-y, y)]
    assert reach.moved_by_depth[0] == pytest.approx(20 * max(corners) / 200**2 * in_plane, rel=1e-6)
    rigid = deformation_reach(replace(bent, deformation=None), np.arange(3), rotations[:3], EXTENT)
    assert np.allclose([rigid.moved, rigid.moved_by_depth, rigid.deeper], 0, atol=1e-9)
