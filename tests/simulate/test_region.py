"""What is in view: the analytic answer against the images of every tilt, areas, and heights in a bent slab."""

import numpy as np
import pytest

from tiltwise.params.scene import IceParams
from tiltwise.simulate import region
from tiltwise.simulate.scene import Field, IceSlab


@pytest.mark.parametrize("axis", [0.0, 85.0, 90.0, -37.0])
def test_in_view_is_what_some_tilt_shows(axis):
    field, thickness = Field(side=1000.0, tilt_axis_angle=axis, tilt_max=60.0), 300.0
    rng = np.random.default_rng(0)
    extent = np.array(region.view_extent(field, thickness))
    xy = extent * rng.uniform(-1.1, 1.1, (3000, 2))
    seen = np.zeros(len(xy), dtype=bool)
    for tilt in np.radians(np.linspace(-60, 60, 241)):
        for z in np.linspace(-150, 150, 31):
            image = np.column_stack([xy[:, 0] * np.cos(tilt) + z * np.sin(tilt), xy[:, 1]])
            seen |= region.distance_from_field(field, image) <= 0
    claimed = region.in_view(field, xy, thickness)
    assert not (seen & ~claimed).any()
    assert (claimed & ~seen).mean() < 0.05  # the claim takes any z with any tilt: a rim of T (1 - cos) too wide
    assert not claimed[(np.abs(xy) > extent).any(axis=1)].any()


def test_area_in_view_of_a_square_along_the_axis():
    field = Field(side=1000.0, tilt_axis_angle=0.0, tilt_max=60.0)
    assert region.view_area(field, 0.0) == pytest.approx(2e6, rel=0.01)
    assert region.view_area(field, 0.0, 0.0) == pytest.approx(1e6, rel=0.02)


def test_field_draws_lie_in_the_turned_square():
    field = Field(side=1000.0, tilt_axis_angle=30.0, tilt_max=60.0)
    xy = region.draw_in_field(field, 100.0, 5000, np.random.default_rng(0))
    assert -103 < region.distance_from_field(field, xy).max() <= -100 + 1e-9


def test_slab_rises_where_it_is_told():
    ice = region.ice_slab(IceParams(incline=10.0, azimuth=90.0, bend=1e5), np.random.default_rng(0))
    assert ice.incline == pytest.approx((0, 10)) and ice.curvature == pytest.approx(1e-5)
    assert region.middle_height(ice, np.array([[0.0, 1000.0]]))[0] == pytest.approx(176.3 + 5.0, abs=0.1)


def test_lifted_points_keep_their_distance_from_the_surfaces():
    ice = IceSlab(thickness=1000.0, incline=(12.0, -5.0), curvature=1e-5)
    xy = np.random.default_rng(0).uniform(-3000, 3000, (2000, 2))
    points = region.lift_into_slab(ice, xy, 100.0, np.random.default_rng(1))
    height = (points[:, 2] - region.middle_height(ice, xy)) * region.surface_normals(ice, xy)[:, 2]
    assert 399 < np.abs(height).max() <= 400 + 1e-9
