"""Refinement of frames as a recipe."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.maps import HalfMaps
from tiltwise.data.motion import MovieMotions
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.frames.frame_gates import MotionChoice, TiltEvidence, choose_motion, gather_evidence
from tiltwise.ops.frames.frame_images import (
    FrameImages,
    SeenParticles,
    cut_frames,
    frame_images,
    model_amplitudes,
    see_particles,
)
from tiltwise.ops.frames.frame_weights import (
    TiltAmplitudes,
    WeightChoice,
    choose_weights,
    critical_amplitudes,
    relative_amplitude,
)
from tiltwise.ops.frames.moved import add_shifts
from tiltwise.ops.particles.images import crop_transforms
from tiltwise.ops.particles.slices import band_points
from tiltwise.params.frames import FramesParams
from tiltwise.stages.frames.record import quality_record
from tiltwise.stages.frames.setup import Setup, check_halves, check_movies, prepare
from tiltwise.stages.frames.sums import exposures_of, sum_anew

_JUDGED = 0.8
"""Part of the work until the gates have spoken."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FramesResult:
    tilt_series: TiltSeries
    """The series with new sums of all, odd and even frames; as given where no gate accepted."""
    motions: MovieMotions
    """By what the frames are corrected and weighted now."""
    quality: dict
    """Gates, what was moved and how well it is known, weights of the frames."""


def frames(
    tilt_series: TiltSeries,
    particles: Particles,
    half_maps: HalfMaps,
    motions: MovieMotions,
    gain: np.ndarray | None,
    params: FramesParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> FramesResult:
    """Shifts and weights of the frames of one series by the particles in it, each behind a gate (ops/frames).

    Poses, geometry and CTF stay. Each movie of a used tilt is decoded once, and once more where something was taken;
    one at a time is held, as counts, the crops of its particles on disk. Where no gate accepts, the series is given
    back as it is, images and all. Runs on the processor. Raises InputError for series without movies, movies that
    cannot be read any more, and particles in no half set.
    """
    progress(0.0, "references")
    movies = check_movies(tilt_series, motions, gain)
    why_not = check_halves(tilt_series, particles, half_maps)
    if why_not:
        quality = {"taken": [], "notes": [why_not], "gates": {}, "particles": len(particles)}
        return FramesResult(tilt_series=tilt_series, motions=motions, quality=quality)
    setup = prepare(tilt_series, particles, half_maps, movies, params)
    tilts = _evidence(setup, params, progress)
    scale = field_scale(tilt_series)
    moved = choose_motion(tilts)
    weighed = None
    if tilts and params.refine_weights:
        weighed = choose_weights([_amplitudes(setup, tilt, moved) for tilt in tilts], motions.weighting)
    found = _motions(motions, tilts, moved, weighed, scale)
    if moved.trial is not None or (weighed is not None and weighed.weighting is not None):
        tilt_series = sum_anew(setup.movies, tilt_series, found, lambda done, text: progress(_part(done), text))
    quality = quality_record(setup, tilts, moved, weighed, scale)
    progress(1.0, quality["said"])
    return FramesResult(tilt_series=tilt_series, motions=found, quality=quality)


def field_scale(series: TiltSeries) -> float:
    """Å; the position of a field is counted in halves of the longer side."""
    return max(series.image_shape) * series.pixel_size / 2


def _part(done: float) -> float:
    return _JUDGED + (1 - _JUDGED) * done


def _evidence(setup: Setup, params: FramesParams, progress: Progress) -> list[TiltEvidence]:
    """What each tilt says. Tilts that show fewer than one particle of either half are left out."""
    widths = {"shift": params.shift_step, "field": params.field_step} if params.refine_motion else {}
    seen, found = see_particles(setup.series, setup.particles, setup.settings.particle_radius), []
    rows = np.flatnonzero(setup.series.use).tolist()
    for number, tilt in enumerate(setup.tilts):
        progress(_JUDGED * number / len(setup.tilts), f"frames of tilt {tilt + 1}")
        images = _images(setup, seen, tilt, rows.index(tilt))
        if images is None:
            continue
        shells = setup.settings.box_size // 2 + 1
        found.append(gather_evidence(images, tilt, scale=field_scale(setup.series), widths=widths, shells=shells))
    return found


def _images(setup: Setup, seen: SeenParticles, tilt: int, row: int) -> FrameImages | None:
    """The particles of one tilt, row `row` of the used ones, in each frame; None where a half shows none."""
    index = np.flatnonzero(seen.inside[row].numpy())
    index = index[np.argsort(setup.particles.half_set[index], kind="stable")]
    half_set = setup.particles.half_set[index]
    if not {1, 2} <= set(half_set.tolist()):
        return None
    settings, motion = setup.settings, setup.movies.motions.motion[tilt]
    points = band_points(settings.box_size, setup.radius)
    place = seen.place[row, index].numpy()
    width = settings.box_size * settings.pixel_size
    crops = _scratch((motion.frames, len(index), len(points)))
    cut_frames(setup.movies.frames(tilt), motion, place, points, crops, pixel_size=setup.movies.pixel_size, width=width)
    height, columns = setup.series.image_shape
    position = seen.place[row, index] / settings.pixel_size
    position = position + position.new_tensor([columns // 2, height // 2])
    tilt_crops = crop_transforms(setup.images[row : row + 1], position[None], points, settings.box_size)[:, 0]
    amplitudes = model_amplitudes(setup.series, row, seen, index, half_set, setup.grids, setup.weights, points)
    return frame_images(crops, motion, tilt_crops, amplitudes, points, settings, (place, half_set))


def _amplitudes(setup: Setup, tilt: TiltEvidence, moved: MotionChoice) -> TiltAmplitudes:
    """What the frames of one tilt show, placed by the motion that was taken."""
    motions, settings = setup.movies.motions, setup.settings
    frequency = np.arange(settings.box_size // 2 + 1) / (settings.box_size * settings.pixel_size)
    before, during, voltage = exposures_of(setup.series, motions, tilt.tilt)
    critical, square = critical_amplitudes(before, during, frequency, voltage), frequency**2
    measured = motions.amplitude[tilt.tilt] if motions.weighting == "measured" else None
    plain = motions.weighting == "plain"
    assumed = np.ones_like(critical) if plain else relative_amplitude(critical, square, measured)
    return TiltAmplitudes(
        sums=tilt.trials[moved.trial].sums, share=tilt.share, critical=critical, square=square, before=assumed
    )


def _motions(
    motions: MovieMotions,
    tilts: Sequence[TiltEvidence],
    moved: MotionChoice,
    weighed: WeightChoice | None,
    scale: float,
) -> MovieMotions:
    """What was taken, put into the motions; those of tilts that said nothing stay."""
    motion = list(motions.motion)
    for tilt in tilts if moved.trial is not None else ():
        motion[tilt.tilt] = add_shifts(motion[tilt.tilt], tilt.trials[moved.trial].joint.coefficient, scale)
    found = replace(motions, motion=tuple(motion))
    if weighed is None or weighed.weighting is None:
        return found
    if weighed.fit is None:
        return replace(found, weighting=weighed.weighting, amplitude=())
    amplitude = [None if one is None else np.tile([1.0, 0.0], (one.frames, 1)) for one in motion]
    for tilt, own in zip(tilts, weighed.fit.amplitude, strict=True):
        amplitude[tilt.tilt] = own
    return replace(found, weighting=weighed.weighting, amplitude=tuple(amplitude))


def _scratch(shape: tuple[int, int, int]) -> np.ndarray:
    """Zeros on disk in a file without a name: the crops of many particles in many frames."""
    return np.asarray(np.memmap(tempfile.TemporaryFile(), np.complex64, "w+", shape=shape))  # noqa: SIM115
