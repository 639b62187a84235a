"""Correct the motion of the movies of a tilt series and sum their frames (the method: ops/motion/fit.py)."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.data.motion import Motion, MovieMotions, MovieReading
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.motion.camera import Camera, calibrate, defects_of
from tiltwise.ops.motion.estimate import Exposures, MotionEstimate, estimate_motion
from tiltwise.ops.motion.frame_sum import ExposureWeights, FrameSums, bin_sums, binned_shape, sum_frames
from tiltwise.ops.motion.gain import correct_frame
from tiltwise.ops.motion.model import displacement
from tiltwise.ops.motion.patches import crop_frame, gather_frames, working_shape
from tiltwise.params.motion import MotionParams

_FINEST = 8.0
"""Å; contrast in ice finer than this adds little to what a frame of a tilt says of its place."""
_DRIFTED = 15.0
"""Å; a tilt whose frames move by more, each against the last (median over the frames, so that a burst at the start does
not count), is not used: within each frame a wave of 30 Å is left with sin(π s / 30) / (π s / 30) = 0.64 of its
amplitude, one of 15 Å with nothing."""
_LOOKED_AT = 5
"""Places along each side at which local motion is measured for the record."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MotionResult:
    tilt_series: TiltSeries
    """The series with images, and the sums of odd and of even frames; tilts whose movie cannot be read are excluded."""
    motions: MovieMotions
    """What was taken back, and all that reading the movies alike once more needs."""
    quality: dict
    """Figures per tilt, None where there was no movie; how gain reference and defect map lie."""


def motion(
    tilt_series: TiltSeries,
    gain: np.ndarray | None,
    defects: DefectMap | None,
    params: MotionParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> MotionResult:
    """Images from movies: gain, defects, motion of the whole and local, sums of all, odd and even frames.

    `gain` (y, x) is a reference of any orientation, and so are the pixels of `defects`; how they lie is found from the
    first movie. Each movie is decoded once, and one at a time is held, as counts. A movie that cannot be read excludes
    its tilt, with the reason; InputError if none can, or if the series has none.
    """
    if tilt_series.movies is None or not any(movie is not None for movie in tilt_series.movies):
        raise InputError(f"{tilt_series.name}: has no movies whose motion could be corrected")
    camera_pixel = tilt_series.pixel_size
    tilt_series = _as_read(tilt_series, params)
    shape = binned_shape(_frame_shape(tilt_series), params.binning)
    outputs = [_scratch((tilt_series.number, *shape)) for _ in range(3)]
    use, why_not = tilt_series.use.copy(), list(tilt_series.why_not)
    camera, motions, rows = None, [None] * tilt_series.number, [None] * tilt_series.number
    for tilt in np.argsort(tilt_series.acquisition_order):
        progress(float((use & [m is not None for m in motions]).mean()), f"motion of tilt {tilt + 1}")
        try:
            raw = _read(tilt_series, tilt)
        except InputError as error:
            use[tilt], why_not[tilt] = False, why_not[tilt] or str(error)
            continue
        if camera is None:
            samples = round(camera_pixel / tilt_series.pixel_size)
            camera = calibrate(gain, defects, raw, samples, params.gain_orientation)
        sums, found, defective = _correct(raw, camera, tilt_series, tilt, params)
        for output, image in zip(outputs, (sums.odd + sums.even, sums.odd, sums.even), strict=True):
            output[tilt] = image
        motions[tilt], rows[tilt] = found.motion, _row(found, defective)
        if rows[tilt]["median_step_A"] > _DRIFTED:
            step = f"its frames move by {rows[tilt]['median_step_A']:.0f} Å each, more than {_DRIFTED:.0f} Å"
            use[tilt], why_not[tilt] = False, why_not[tilt] or f"image is blurred by drift: {step}"
    if camera is None:
        raise InputError(
            f"{tilt_series.name}: none of its movies can be read; the first: {next(filter(None, why_not))}"
        )
    images, odd, even = outputs
    corrected = replace(
        tilt_series,
        pixel_size=tilt_series.pixel_size * params.binning,
        images=images,
        half_images=(odd, even),
        image_names=(),
        movies=None,
        use=use,
        why_not=tuple(why_not),
    )
    found = replace(_found(tilt_series, motions, camera, camera_pixel, params), defects=defects)
    return MotionResult(tilt_series=corrected, motions=found, quality=_quality(rows, camera))


def _found(
    tilt_series: TiltSeries, motions: list[Motion | None], camera: Camera, camera_pixel: float, params: MotionParams
) -> MovieMotions:
    """What a later step needs to read the movies once more."""
    orientation, inverted = camera.gain_lies or (None, False)
    return MovieMotions(
        movies=tilt_series.movies,
        movie_names=tuple(tilt_series.image_names) or ("",) * tilt_series.number,
        faults=("",) * tilt_series.number,
        motion=tuple(motions),
        reading=MovieReading(
            gain_orientation=orientation,
            gain_inverted=inverted,
            defects_orientation=camera.defects_lie,
            find_defects=params.defects,
            samples=round(camera_pixel / tilt_series.pixel_size),
            binning=params.binning,
        ),
        weighting="critical" if params.exposure_weighting else "plain",
    )


def _frame_shape(tilt_series: TiltSeries) -> tuple[int, int]:
    return next(tuple(movie.shape[1:]) for movie in tilt_series.movies if movie is not None)


def _read(tilt_series: TiltSeries, tilt: int) -> list[np.ndarray]:
    """Raw counts of each frame as the file holds them; InputError if they cannot be had."""
    movie = tilt_series.movies[tilt]
    if movie is None:
        raise InputError(tilt_series.why_not[tilt] or "it has no movie")
    if tuple(movie.shape[1:]) != _frame_shape(tilt_series):
        raise InputError(f"its frames are {movie.shape[2]} × {movie.shape[1]} px, unlike those of the first movie")
    return list(movie)


def _as_read(tilt_series: TiltSeries, params: MotionParams) -> TiltSeries:
    """The series with electrons counted into frames of about `frame_exposure`, and with `eer_sampling` samples for each
    pixel, where its movies list single electrons; pixel size and shifts follow."""

    def as_read(movie, exposure: float):
        if not hasattr(movie, "read_as"):
            return movie
        frames = {"frames": max(round(exposure / params.frame_exposure), 2)} if exposure > 0 else {}
        return movie.read_as(upsampling=params.eer_sampling, **frames)

    movies = tuple(as_read(m, float(e)) for m, e in zip(tilt_series.movies, tilt_series.exposure, strict=True))
    tilt_series = replace(tilt_series, movies=movies)
    samples = _frame_shape(tilt_series)[1] // tilt_series.image_shape[1]
    geometry = tilt_series.geometry
    if geometry is not None:  # pixel n // 2 of the camera has its middle behind sample n // 2 of what is finer
        moved = geometry.shift + (samples - 1) / (2 * samples) * tilt_series.pixel_size
        geometry = replace(geometry, shift=moved)
    return replace(tilt_series, geometry=geometry, pixel_size=tilt_series.pixel_size / samples)


def _correct(
    raw: list[np.ndarray], camera: Camera, tilt_series: TiltSeries, tilt: int, params: MotionParams
) -> tuple[FrameSums, MotionEstimate, int]:
    """The sums of one tilt, its motion, and the number of defective pixels."""
    defects = defects_of(raw, camera, find=params.defects)

    def frames() -> Iterator[torch.Tensor]:
        for frame in raw:
            yield torch.from_numpy(correct_frame(frame, camera.gain, defects))

    pixel_size, shape = tilt_series.pixel_size, raw[0].shape
    shares = getattr(tilt_series.movies[tilt], "exposure_shares", np.full(len(raw), 1 / len(raw)))
    during = shares * float(tilt_series.exposure[tilt])
    before = float(tilt_series.pre_exposure[tilt]) + np.cumsum(during) - during
    voltage = tilt_series.optics.voltage
    resolution = params.resolution or max(_FINEST, 3 * pixel_size)
    if params.model == "none" or len(raw) < 2:
        extent = (shape[1] * pixel_size, shape[0] * pixel_size)
        still = Motion(exposure=during, shift=np.zeros((len(raw), 2)), coefficient=None, extent=extent)
        found = MotionEstimate(motion=still, kept="none", gain=(float("nan"), float("nan")), error=float("nan"))
    else:
        small = working_shape(shape, pixel_size, resolution)
        found = estimate_motion(
            gather_frames([crop_frame(frame, small) for frame in frames()], shape, pixel_size),
            Exposures(before=before, during=during, voltage=voltage),
            resolution=resolution,
            patch_size=params.patch_size,
            controls=(params.controls_exposure, params.controls, params.controls) if params.model == "local" else None,
            limit=params.largest_shift,
        )
    weights = ExposureWeights(before=before, during=during, voltage=voltage) if params.exposure_weighting else None
    sums = bin_sums(sum_frames(frames(), found.motion, pixel_size, weights), params.binning)
    return sums, found, 0 if defects is None else len(defects[0])


def _row(found: MotionEstimate, defective: int) -> dict:
    shift = found.motion.shift
    steps = np.linalg.norm(np.diff(shift, axis=0), axis=1)
    along = [np.linspace(-0.5, 0.5, _LOOKED_AT) * side for side in found.motion.extent]
    grid = np.stack(np.meshgrid(*along), axis=-1).reshape(-1, 2)
    local = displacement(found.motion, grid) - shift[:, None]
    return {
        "kept": found.kept,
        "gain_whole": found.gain[0],
        "gain_local": found.gain[1],
        "shift_error": found.error,
        "drift": float(np.linalg.norm(shift[-1] - shift[0])),
        "path": float(steps.sum()),
        "median_step_A": float(np.median(steps)) if len(steps) else 0.0,
        "local_rms_A": float(np.sqrt((local**2).sum(-1).mean())),
        "track_A": (shift - shift[0]).round(2).tolist(),
        "defective_pixels": defective,
    }


def _quality(rows: list[dict | None], camera: Camera) -> dict:
    keys = next(row for row in rows if row is not None)
    columns = {key: [None if row is None else row[key] for row in rows] for key in keys}
    return {"gain_reference": camera.gain_stated, "defect_map": camera.defects_stated, **columns}


def _scratch(shape: tuple[int, int, int]) -> np.ndarray:
    """Zeros on disk in a file without a name: three stacks of a whole series are more than memory should hold."""
    return np.memmap(tempfile.TemporaryFile(), np.float32, "w+", shape=shape)  # noqa: SIM115  closed with the map
