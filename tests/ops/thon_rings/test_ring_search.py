"""The search starts the fit within a ring of the truth, astigmatism included."""

import math

import pytest
import torch

from tiltwise.data.optics import Optics
from tiltwise.ops.thon_rings.model import RingSpectra, background_basis, ring_pattern
from tiltwise.ops.thon_rings.prior import BELIEVED, SHARED, RingFit
from tiltwise.ops.thon_rings.search import search_astigmatism, search_series
from tiltwise.ops.thon_rings.spectra import patch_centres, patch_layout, polar_bins

PIXEL, SIZE, SIDE, STRENGTH = 2.5, 256, 512, 0.4


def expected_spectra(defocus: float, astigmatism: tuple[float, float]) -> RingSpectra:
    """The mean power of one untilted image of a thin film, noise left out: what many images average to."""
    layout, bins = patch_layout((SIDE, SIDE), SIZE), polar_bins(SIZE, PIXEL, 1 / 30, 1 / 5.3, 8)
    centre = (patch_centres(layout) - SIDE // 2) * PIXEL
    rings = bins.frequency.shape[1]
    shape = (1, len(centre), *bins.count.shape)
    given = RingSpectra(
        power=torch.ones(shape, dtype=torch.float64),
        weight=(layout.independent[:, None, None] * bins.count).expand(shape).clone(),
        position=centre[None].clone(),
        rotations=torch.eye(3, dtype=torch.float64)[None],
        tilt_angle=torch.zeros(1, dtype=torch.float64),
        course=torch.zeros(1, 2, dtype=torch.float64),
        damage=torch.ones(1, rings, dtype=torch.float64),
        coherence=torch.ones(1, rings, dtype=torch.float64),
        bins=bins,
        layout=layout,
        pixel_size=PIXEL,
        optics=Optics(),
    )
    local = defocus + astigmatism[0] * bins.cosine + astigmatism[1] * bins.sine
    given.power.mul_(1 + STRENGTH * ring_pattern(given, bins.frequency, local)[0])
    return given


def start(given: RingSpectra, defocus: float) -> RingFit:
    """A fit at a defocus of the grid, without astigmatism."""
    ratio = STRENGTH / (1 - STRENGTH) / 2  # s_0 + s_1 = r, r / (1 + r) = the strength of the rings
    return RingFit(
        handedness=1,
        defocus=torch.tensor([defocus], dtype=torch.float64),
        defocus_error=torch.tensor([math.nan], dtype=torch.float64),
        astigmatism=torch.zeros(2, dtype=torch.float64),
        drift=torch.zeros(2, 2, dtype=torch.float64),
        drift_sd=100.0,
        shared_error=torch.full((SHARED,), math.nan, dtype=torch.float64),
        slope=torch.zeros(2, dtype=torch.float64),
        thickness=BELIEVED.thickness,
        phase_shift=0.0,
        contrast=torch.ones(1, dtype=torch.float64),
        shape=torch.full((2, len(given.ring_frequency)), ratio, dtype=torch.float64),
        background=torch.zeros(1, background_basis(given.bins).shape[-1], dtype=torch.float64),
        variation=(150.0, 150.0),
        drift_evidence=math.nan,
        log_evidence=0.0,
    )


@pytest.mark.parametrize("astigmatism", [(0.0, 0.0), (375.0, -250.0), (-625.0, 500.0), (0.0, 875.0)])
def test_astigmatism_is_found_from_far_away(astigmatism):
    """On a grid of 125 Å, so to half a step along each axis; defocus from 250 Å off."""
    found = search_astigmatism(
        expected_spectra(21250.0, astigmatism), start(expected_spectra(21250.0, astigmatism), 21000.0)
    )
    assert torch.all((found.astigmatism - torch.tensor(astigmatism)).abs() <= 62.5)
    assert abs(float(found.defocus[0]) - 21250) <= 62.5


def test_an_untilted_image_knows_no_hand():
    _, searches = search_series(expected_spectra(21250.0, (200.0, 0.0)), 10000.0, 40000.0)
    assert len(searches) == 1
    assert abs(float(searches[0].fit.defocus[0]) - 21250) <= 125
