"""The wave against linear imaging, and against docs/conventions.md: which way defocus grows with depth."""

import numpy as np
import pytest
from optical_bench import COHERENT, clean_microscope, exact_series
from scipy.spatial.transform import Rotation

from tiltwise.simulate.multislice import heights_of
from tiltwise.simulate.proof import linear_against_multislice, point_defocus, protein_ball
from tiltwise.simulate.scene import Population


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize(("tilt", "depth"), [(0, 1500.0), (2, -1000.0)])
def test_defocus_of_a_point_is_that_of_the_conventions(hand, tilt, depth):
    """defocus_i + h · depth, to 20 Å. Slices are 10 Å thick, so a point is up to 5 Å from the middle of its own."""
    series = exact_series(288, 2.0, hand=hand)
    assert point_defocus(series, tilt, depth, COHERENT) == pytest.approx(20000.0 + hand * depth, abs=20.0)


def test_the_gun_stands_where_the_conventions_say():
    """h = +1: +z points away from the gun."""
    depth = np.array([100.0])
    assert heights_of(exact_series(64, 4.0, hand=1), depth) == -100
    assert heights_of(exact_series(64, 4.0, hand=-1), depth) == 100


def bodies(weakness: float) -> Population:
    """Four balls of 100 kDa, 600 Å of depth apart, scattering by a fraction of what protein does."""
    rng = np.random.default_rng(3)
    scatterer, radius = protein_ball(1e5, rng)
    object.__setattr__(scatterer, "weight", scatterer.weight * np.float32(weakness))
    position = np.array([[60.0, 0, 300], [-60, 0, -300], [0, 60, 0], [0, -60, 100]])
    return Population(
        name="target", scatterer=scatterer, position=position, rotation=Rotation.random(4, rng), half_extent=radius
    )


@pytest.mark.parametrize("hand", [1, -1])
def test_weak_bodies_are_imaged_linearly(hand):
    """Of a hundredth of protein's potential (phases below 0.003 rad) the quadratic terms are below 0.3 % of the image;
    what is left are the aliases of bilinear spreading, 1 to 2 %, and the cut of a body's box in the last rings."""
    series, params = exact_series(320, 2.0, hand=hand), clean_microscope(320, 2.0)
    agreement = linear_against_multislice(bodies(0.01), series, 2, params)
    used = (agreement.frequency > 1 / 60) & (agreement.frequency < 0.9 / 4.0)
    assert agreement.correlation[used].min() > 0.98
    other = exact_series(320, 2.0, hand=-hand)
    wrong = linear_against_multislice(bodies(0.01), other, 2, params)
    assert wrong.correlation[used].min() > 0.98  # each hand agrees with itself ...
    assert not np.allclose(wrong.correlation, agreement.correlation)


def test_protein_is_nearly_so():
    """Phases of some 0.2 rad: second order terms are a tenth of the first at low frequency, yet the rings agree."""
    series, params = exact_series(320, 2.0), clean_microscope(320, 2.0)
    agreement = linear_against_multislice(bodies(1.0), series, 1, params)
    low = (agreement.frequency > 1 / 100) & (agreement.frequency < 1 / 15)
    assert agreement.correlation[low].min() > 0.9
