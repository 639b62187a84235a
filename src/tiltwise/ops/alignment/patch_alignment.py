"""An alignment improved with patches of the specimen, and tested on patches that took no part in it.

Patches are followed (`ops.alignment.patch_tracking`) from a geometry that projection matching gave, and axis and tilt
angles are fitted to them (`ops.alignment.track_alignment`). Shifts are not: a whole image tells its shift better than
the part of it that patches cover, so it is matched anew to what the new geometry foretells.
"""

from dataclasses import replace

import numpy as np

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.bundle_adjustment import Freedom
from tiltwise.ops.alignment.patch_tracking import patch_width, track_patches
from tiltwise.ops.alignment.projection_matching import Level, match_geometry
from tiltwise.ops.alignment.track_alignment import DRIFT, FIXED, ONE_AXIS, TrackAlignment, align_to_tracks

_MODELS = {
    "one axis": replace(ONE_AXIS, shift=FIXED),
    "drifting axis": replace(DRIFT, shift=FIXED),
    "drifting axis, tilt angles": replace(DRIFT, shift=FIXED, tilt_angle=Freedom(deviation=0.1)),
}
"""Tilt angles are held more closely than with beads: patches have no depths of their own to speak of, so that the angle
of a low tilt, which moves what lies in the plane z = 0 by x sin θ dθ only, is hardly seen in them."""
_FEWEST = 6
"""Patches below which no half can be held out."""


def align_to_patches(level: Level, geometry: TiltGeometry) -> TrackAlignment | None:
    """Follow patches, fit to them, and match the images anew; None where fewer than six patches can be followed.

    geometry must be right to the finest spacing of the level, which is the furthest that a patch or image is moved.
    """
    limit, width = level.band[1], patch_width(len(level.frames.window) * level.frames.pixel_size)
    tracks = track_patches(level, geometry, limit)
    if len(tracks.points) < _FEWEST:
        return None
    found = align_to_tracks(tracks, geometry, geometry, width, _MODELS)
    steps = np.array([match.shift for match in match_geometry(level, found.geometry, limit)])
    return replace(found, geometry=replace(found.geometry, shift=found.geometry.shift + steps))
