"""Where the specimen lies, and the geometry in which the tomogram is level about its middle."""

import numpy as np

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.projection_matching import dense_part, prepare_level
from tiltwise.ops.alignment.specimen_slab import STEEPEST, Slab, find_slab, level_slab
from tiltwise.params.align import AlignParams
from tiltwise.stages.align.markerless import MatchedSeries

_RESOLUTION = 80.0
"""Å; thinner than any slab, coarse enough for what is dense to stand above the noise."""
_SEEN = 0.8
"""Part of the field, about its middle, that every tilt shows through all of the slab's depth."""


def level_specimen(matched: MatchedSeries, geometry: TiltGeometry, params: AlignParams) -> tuple[TiltGeometry, Slab]:
    """The slab found in a reconstruction with a geometry of the used tilts, and the geometry that makes it level."""
    frames, series = matched.used_frames, matched.series
    side = len(frames.window) * frames.pixel_size
    resolution = max(_RESOLUTION, matched.level.band[1])
    level = prepare_level(frames, series.stage_tilt_angle[series.use], resolution, params.thickness + STEEPEST * side)
    density = dense_part(level, geometry)
    edge = round((1 - _SEEN) / 2 * density.shape[1])
    slab = find_slab(density[:, edge:-edge, edge:-edge], level.grid.voxel_size, 1.2 * params.thickness)
    return level_slab(geometry, slab), slab


def slab_figures(slab: Slab, levelled: bool) -> dict:
    """For the record: before levelling, in the frame of the stage."""
    return {
        "thickness_A": round(slab.thickness * float(np.cos(np.arctan(np.hypot(*slab.slope)))), 1),
        "height_A": round(slab.height, 1),
        "incline_deg": [round(angle, 3) for angle in slab.incline],
        "levelled": levelled,
    }
