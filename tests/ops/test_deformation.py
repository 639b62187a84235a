"""Where points of a deforming specimen appear: closed forms for each part of the model, and their composition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_series import geometry, series

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.ops.deformation import middle_exposure, sample_displacement, specimen_in_images, warp_basis
from tiltwise.ops.geometry import project_points, tilt_rotations

POINTS = np.random.default_rng(4).uniform(-1, 1, (20, 3)) * (1500, 1400, 300)
EXTENT = (4000.0, 3600.0)


@pytest.fixture
def aligned():
    return series(geometry())


def sample(number=13, magnification=1.0, **monomials):
    """Coefficients grow linearly from none to those given at 39 e⁻/Å²; cubic splines through a line are the line."""
    names = ["one", "x", "y", "z", "xx", "yy", "zz", "xy", "xz", "yz"]
    coefficient = np.zeros((4, 10, 3))
    for name, vector in monomials.items():
        coefficient[:, names.index(name)] = np.linspace(0, 1, 4)[:, None] * np.array(vector)
    return SampleDeformation(
        exposure=np.linspace(0, 39, 4),
        coefficient=coefficient,
        scale=1000.0,
        magnification=np.full(number, magnification),
    )


def warp(number=13, controls=(5, 6), of=lambda y, x: (0 * x, 0 * y)):
    """Control values of a uniform cubic B-spline that are linear in their place make that line."""
    y = ((np.arange(controls[0]) - 1) / (controls[0] - 3) - 0.5) * EXTENT[1]
    x = ((np.arange(controls[1]) - 1) / (controls[1] - 3) - 0.5) * EXTENT[0]
    own = np.stack(np.broadcast_arrays(*of(y[:, None], x[None, :])), axis=-1)
    return ImageWarp(coefficient=np.repeat(own[None], number, axis=0), extent=EXTENT)


def test_without_a_deformation_the_specimen_is_rigid(aligned):
    place, depth = specimen_in_images(aligned, POINTS)
    rigid = project_points(
        torch.as_tensor(POINTS), tilt_rotations(aligned.geometry), torch.as_tensor(aligned.geometry.shift)
    )
    assert np.allclose(place, rigid[0]) and np.allclose(depth, rigid[1])
    nothing = replace(aligned, deformation=Deformation(sample=sample(), image=warp()))
    assert np.allclose(specimen_in_images(nothing, POINTS)[0], place, atol=1e-9)


def test_the_specimen_bends_with_the_exposure(aligned):
    """z² along z of 20 Å at z = 1000 Å at the end: at exposure N a point is lifted by 20 (z / 1000)² N / 39."""
    bent = sample(zz=(0, 0, 20.0))
    lift = 20 * (POINTS[:, 2] / 1000) ** 2
    assert np.allclose(sample_displacement(bent, POINTS, 19.5), np.outer(0.5 * lift, [0, 0, 1]), atol=1e-9)
    place, depth = specimen_in_images(replace(aligned, deformation=Deformation(sample=bent)), POINTS)
    for i, exposure in enumerate(middle_exposure(aligned)):
        moved = POINTS + np.outer(lift * exposure / 39, [0, 0, 1])
        expected = project_points(
            torch.as_tensor(moved), tilt_rotations(aligned.geometry), torch.as_tensor(aligned.geometry.shift)
        )
        assert np.allclose(place[i], expected[0][i], atol=1e-8) and np.allclose(depth[i], expected[1][i], atol=1e-8)


def test_magnification_scales_about_the_image_centre_and_the_warp_comes_last(aligned):
    rigid, _ = specimen_in_images(aligned, POINTS)
    scaled = replace(aligned, deformation=Deformation(sample=sample(magnification=1.01)))
    assert np.allclose(specimen_in_images(scaled, POINTS)[0], 1.01 * rigid)
    sheared = warp(of=lambda y, x: (0.002 * y, 5.0 + 0 * x))
    both = replace(scaled, deformation=replace(scaled.deformation, image=sheared))
    inside = np.abs(1.01 * rigid) < np.array(EXTENT) / 2
    expected = 1.01 * rigid + np.stack([0.002 * 1.01 * rigid[..., 1], np.full(rigid.shape[:2], 5.0)], axis=-1)
    found = specimen_in_images(both, POINTS)[0]
    assert inside.all(-1).sum() > 100
    assert np.allclose(found[inside.all(-1)], expected[inside.all(-1)], atol=1e-9)


def test_rows_of_tilts_are_those_of_all(aligned):
    bent = replace(aligned, deformation=Deformation(sample=sample(xy=(3, 2, 1)), image=warp(of=lambda y, x: (x, y))))
    some = np.array([11, 2, 5])
    for part, whole in zip(specimen_in_images(bent, POINTS, some), specimen_in_images(bent, POINTS), strict=True):
        assert np.array_equal(part, whole[some])


def test_the_warp_s_basis_sums_to_one_everywhere():
    places = np.random.default_rng(0).uniform(-3000, 3000, (50, 2))
    assert np.allclose(warp_basis(places, EXTENT, (4, 7)).sum(1), 1)
