"""Align the images of a tilt series: without markers (markerless.py), then by patches and by gold beads, each where it
places held-out points better than what was there before."""

from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.errors import StageError
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import GoldBeads, TiltGeometry, TiltSeries
from tiltwise.ops.alignment.bead_alignment import align_to_beads
from tiltwise.ops.alignment.beads import find_beads, measure_bead_diameter
from tiltwise.ops.alignment.image_cleaning import clean_images
from tiltwise.ops.alignment.patch_alignment import align_to_patches
from tiltwise.ops.alignment.tilt_faults import TiltScores, score_tilts
from tiltwise.ops.alignment.track_alignment import TrackAlignment, place_points
from tiltwise.ops.alignment.track_deformation import TrackDeformation, deform_to_tracks
from tiltwise.params.align import AlignParams
from tiltwise.stages.align.data_set_axis import match_in_data_set
from tiltwise.stages.align.levelling import level_specimen, slab_figures
from tiltwise.stages.align.markerless import MatchedSeries, exclude_tilts, match_again
from tiltwise.stages.align.record import deformation_figures, matching_figures, score_figures, track_figures

_BEAD_PIXEL = 1 / 12
"""Pixel at which beads are located, in their diameters: a parabola through three samples of a response as smooth as
a bead errs by less than a fiftieth of a pixel."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AlignResult:
    tilt_series: TiltSeries
    """The series with its geometry set, and with unfit tilts excluded."""
    quality: dict
    """Figures per tilt and for the whole; lists are (tilt,), None where a tilt is excluded."""


def align(
    tilt_series: TiltSeries, params: AlignParams, *, device: str = "cpu", progress: Progress = no_progress
) -> AlignResult:
    """Shifts of all images and the tilt axis, from the images themselves.

    Without markers first: stretched cross-correlation along the tilt order (Guckenberger 1982), then projection
    matching from coarse to fine (Dengler 1989; Owen & Landis 1996), with the tilt angles of the stage. Then shifts,
    axis and, if that serves, a drift of the axis and the tilt angles are fitted to patches of the specimen, and where
    gold beads are found to these; either is taken if it places held-out patches or beads better. A tilt that is dark,
    blocked, or does not agree with the others, is excluded with the reason, and its row of the geometry is
    interpolated; so is one that the tracks tell to be distorted by charge or at odds with the rest, after which the
    finest level, patches and beads are done again without it.
    The axis stays in the half-turn of its prior. Where the data set has another (`tilt_axis_median`), it is found anew
    from that, and only images that insist keep their own (data_set_axis.py). The origin is the middle of the specimen
    in depth, and where no common shift is left; the slab of the specimen is level, by an offset of the tilt angles and
    an x-tilt. At last a smooth deformation of specimen and images is fitted to the tracks, and kept if it places
    held-out ones better. Raises InputError where no axis is known or too few tilts are usable, and StageError where the
    result agrees less with the images than no alignment does, or patches or beads are asked for and there are none.
    """
    matched, axis, params = match_in_data_set(tilt_series, params, device, progress)
    tracked = _follow(matched, params, progress)
    faults = tracked.faults
    if any(faults):
        progress(0.9, f"again without {sum(map(bool, faults))} tilts that the tracks tell to be unfit")
        fewer = exclude_tilts(tracked.matched.series, faults)
        tracked = _follow(match_again(tracked.matched, fewer, params), params, no_progress)
    matched, geometry, patches, beads = tracked.matched, tracked.geometry, tracked.patches, tracked.beads
    series = matched.series
    progress(0.95, "beads followed")
    levelled, slab = level_specimen(matched, geometry, params)
    geometry = levelled if params.level_specimen else geometry
    gold = beads and GoldBeads(position=place_points(beads.observations, geometry), diameter=beads.size)
    specimen = slab_figures(slab, params.level_specimen)
    result = replace(
        series,
        geometry=_geometry_of_all(series, geometry),
        specimen_thickness=specimen["thickness_A"] if params.level_specimen else None,
        beads=gold,
    )
    deformed = _follow_deformation(result, patches, beads, params)
    if deformed is not None:
        result = deformed.tilt_series
    method = tracked.method
    quality = matching_figures(result, matched.found, matched.correlation) | {
        **axis,
        "method": method,
        "patches": track_figures(series, patches, "width_A"),
        "beads": track_figures(series, beads, "diameter_A"),
        "deformation": deformation_figures(deformed),
        "specimen": specimen,
    }
    if method != "projection":
        quality["residual_A"] = quality[method]["residual_A"]
    return AlignResult(tilt_series=result, quality=quality | score_figures(series, tracked.scores))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Tracked:
    """A series aligned without markers, then by what could be followed in it."""

    matched: MatchedSeries
    geometry: TiltGeometry
    method: str
    patches: TrackAlignment | None
    beads: TrackAlignment | None

    @property
    def scores(self) -> TiltScores | None:
        """Of the used tilts, by the beads if these align the series, else by the patches; None without either."""
        tracks = self.beads if self.method == "beads" else self.patches or self.beads
        return tracks and score_tilts(tracks)

    @property
    def faults(self) -> tuple[str, ...]:
        """(tilt,) what tracks say against a tilt of the series."""
        faults, scores = [""] * self.matched.series.number, self.scores
        for tilt, fault in zip(np.flatnonzero(self.matched.series.use), scores.faults if scores else (), strict=False):
            faults[tilt] = fault
        return tuple(faults)


def _follow(matched: MatchedSeries, params: AlignParams, progress: Progress) -> _Tracked:
    """Patches and beads followed from where whole images are matched."""
    geometry, method = matched.geometry, "projection"
    progress(0.7, "images matched to reprojections")
    patches = _follow_patches(matched, params)
    if patches is not None and (params.method == "patches" or patches.better):
        geometry, method = patches.geometry, "patches"
    progress(0.85, "patches followed")
    beads = _follow_beads(matched, geometry, params)
    if beads is not None and (params.method == "beads" or beads.better):
        geometry, method = beads.geometry, "beads"
    return _Tracked(matched=matched, geometry=geometry, method=method, patches=patches, beads=beads)


def _follow_patches(matched: MatchedSeries, params: AlignParams) -> TrackAlignment | None:
    """A fit to patches of the used tilts; None where it is not asked for, or too few can be followed."""
    if params.method == "projection":
        return None
    found = align_to_patches(matched.level, matched.geometry)
    if found is None and params.method == "patches":
        name = matched.series.name
        raise StageError(f"{name}: too few patches can be followed; set method of the step align to projection")
    return found


def _follow_beads(matched: MatchedSeries, geometry: TiltGeometry, params: AlignParams) -> TrackAlignment | None:
    """A fit to the beads of the used tilts, from a geometry for these; None where there are too few beads."""
    if params.method in ("projection", "patches"):
        return None
    series = matched.series
    used = np.flatnonzero(series.use)
    diameter = measure_bead_diameter(matched.used_frames, series.stage_tilt_angle[used])
    found = None
    if diameter is not None:
        fine = clean_images(series, max(diameter * _BEAD_PIXEL, series.pixel_size), matched.frames.data.device)
        candidates = [find_beads(fine, int(i), diameter) for i in used]
        found = align_to_beads(candidates, geometry, diameter, params.thickness)
    if found is None and params.method == "beads":
        raise StageError(f"{series.name}: too few gold beads to align by; set method of the step align to projection")
    return found


def _follow_deformation(
    series: TiltSeries, patches: TrackAlignment | None, beads: TrackAlignment | None, params: AlignParams
) -> TrackDeformation | None:
    """What beads, or patches where beads are too few, say of a deformation of the aligned series; None where neither
    can. Only beads are points, and tell the magnification of an image from what its parts do."""
    found = None
    if params.deformation and beads is not None:
        found = deform_to_tracks(series, beads.observations)
    if params.deformation and found is None and patches is not None:
        found = deform_to_tracks(series, patches.observations, ("sample", "warp"))
    return found


def _geometry_of_all(series: TiltSeries, found: TiltGeometry) -> TiltGeometry:
    """Geometry of all tilts from that of the used ones; what excluded ones lack is interpolated over the tilt angle."""
    stage, used = series.stage_tilt_angle, np.flatnonzero(series.use)
    order = np.argsort(stage[used], kind="stable")

    def spread(values: np.ndarray) -> np.ndarray:
        every = np.interp(stage, stage[used][order], values[order])
        every[used] = values
        return every

    return TiltGeometry(
        tilt_angle=stage + spread(found.tilt_angle - stage[used]),
        tilt_axis_angle=spread(found.tilt_axis_angle),
        x_tilt=spread(found.x_tilt),
        shift=np.stack([spread(found.shift[:, axis]) for axis in range(2)], axis=1),
    )
