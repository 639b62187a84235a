"""Tilts of tracks that are distorted, at odds or not seen are told apart, with scores that are those put in."""

import numpy as np
import pytest
from test_track_deformation import fitted, made_series, observe

from tiltwise.ops.alignment.bundle_system import Observations
from tiltwise.ops.alignment.tilt_faults import score_tilts
from tiltwise.ops.alignment.track_alignment import Tracks, align_to_tracks
from tiltwise.ops.alignment.track_deformation import used_geometry

CHARGED, LOST, ODD = 3, 9, 15
BEND = np.array([[0.012, 0.004], [0.006, -0.010]])


def spoil(seen, kinds, rng):
    """Observations of which those of one tilt are bent about the image centre, of another mostly gone, of a third
    moved by 20 Å each."""
    position, keep = seen.position.copy(), np.ones(len(seen.tilt), bool)
    if "charged" in kinds:
        own = seen.tilt == CHARGED
        position[own] += position[own] @ BEND.T
    if "odd" in kinds:
        own = seen.tilt == ODD
        position[own] += rng.normal(0, 20, (own.sum(), 2))
    if "lost" in kinds:
        keep[(seen.tilt == LOST) & (seen.point > 4)] = False
    return Observations(tilt=seen.tilt[keep], point=seen.point[keep], position=position[keep], weight=seen.weight[keep])


@pytest.mark.parametrize("kinds", [(), ("charged",), ("odd",), ("lost",), ("charged", "odd", "lost")])
def test_each_fault_is_told_with_its_score_and_no_other(kinds):
    series, rng = made_series(), np.random.default_rng(0)
    points, seen = observe(series, 30)  # noise of 2 Å, one in fifty wrong by 60 Å
    seen = spoil(seen, kinds, rng)
    rigid = fitted(series, seen)
    found = score_tilts(
        align_to_tracks(Tracks(observations=seen, points=points), used_geometry(rigid), used_geometry(rigid), 100.0)
    )
    expected = {"charged": CHARGED, "odd": ODD, "lost": LOST}
    assert [tilt for tilt, fault in enumerate(found.faults) if fault] == sorted(expected[kind] for kind in kinds)
    if "charged" in kinds:
        places = seen.position[seen.tilt == CHARGED]
        truth = np.sqrt((((places - places.mean(0)) @ BEND.T) ** 2).sum(1).mean())
        assert "charged" in found.faults[CHARGED]
        # what the points' own fit takes of it, one in twenty tilts, and noise
        assert found.distortion[CHARGED] == pytest.approx(truth, rel=0.1)
    if "odd" in kinds:
        assert "misfit" in found.faults[ODD] and found.misfit[ODD] == pytest.approx(20 * np.sqrt(2), rel=0.35)
    if "lost" in kinds:
        assert "5 places recognised, 30 in the tilts beside it" in found.faults[LOST]
    sound = [tilt for tilt in range(20) if not found.faults[tilt]]
    assert np.nanmax(found.distortion[sound]) < 5 and np.nanmax(found.misfit[sound]) < 6
