"""An alignment improved with the series' gold beads, and tested on beads that took no part in it.

Beads are followed from the geometry given (`ops.alignment.beads`), tilts that lie far off are moved to where most beads
agree, and shifts, axis and tilt angles are fitted (`ops.alignment.track_alignment`).
"""

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.beads import Candidates, match_beads, track_beads
from tiltwise.ops.alignment.bundle_system import BundleState, predict
from tiltwise.ops.alignment.track_alignment import DRIFT, TrackAlignment, align_to_tracks, fit_tracks, one_axis

_FEWEST = 6
"""Beads below which no half can be held out."""
_FAR = 600.0
"""Furthest (Å) that a tilt is looked for from where it was."""


def align_to_beads(
    candidates: list[Candidates], geometry: TiltGeometry, diameter: float, depth: float
) -> TrackAlignment | None:
    """Follow beads of this diameter (Å) with |z| up to depth (Å) and fit to them; None where fewer than six are found.

    candidates has an entry a tilt of the geometry, which must be right for most tilts to half a diameter or 40 Å.
    """
    tolerance = max(0.5 * diameter, 40.0)
    tracks = track_beads(candidates, geometry, diameter, depth, tolerance)
    if len(tracks.points) < _FEWEST:
        return None
    moved = replace(geometry, shift=geometry.shift + far_off(candidates, geometry, tracks.points, tolerance))
    tracks = match_beads(candidates, BundleState.undistorted(moved, tracks.points), tolerance)
    for _ in range(2):
        fit = fit_tracks(tracks.observations, moved, DRIFT)
        nearer = max(5 * fit.scale, 0.2 * diameter)
        tracks = match_beads(candidates, fit.state, nearer)
        if len(tracks.points) < _FEWEST:
            return None
        moved = fit.state.geometry
    return align_to_tracks(tracks, one_axis(moved), geometry, diameter)


def far_off(candidates: list[Candidates], geometry: TiltGeometry, points: np.ndarray, tolerance: float) -> np.ndarray:
    """(tilt, 2) by how much a tilt must be moved for most beads to lie on candidates, Å; zero where nothing is gained.

    Each pair of a predicted bead and a candidate votes for its difference; the one with the most votes within the
    tolerance must have half of the beads, and half as many votes again as no move.
    """
    move = np.zeros((len(candidates), 2))
    state = BundleState.undistorted(geometry, points)
    for tilt, candidate in enumerate(candidates):
        place = predict(state, np.full(len(points), tilt), np.arange(len(points)))
        difference = (candidate.position[:, None] - place).reshape(-1, 2)
        difference = np.concatenate([np.zeros((1, 2)), difference[np.linalg.norm(difference, axis=1) < _FAR]])
        tree = cKDTree(difference)
        votes = np.array([len(near) for near in tree.query_ball_point(difference, tolerance / 2)])
        best = int(votes.argmax())
        if votes[best] > max(1.5 * votes[0], 0.5 * len(points)):
            move[tilt] = difference[tree.query_ball_point(difference[best], tolerance / 2)].mean(0)
    return move
