"""The frames of a series summed anew, under other motion and other weights."""

import tempfile
from dataclasses import replace

import numpy as np

from tiltwise.data.motion import MovieMotions
from tiltwise.data.progress import Progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.motion.frame_sum import ExposureWeights, bin_sums, sum_frames
from tiltwise.stages.frames.setup import Movies


def exposures_of(series: TiltSeries, motions: MovieMotions, tilt: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(frame,) exposure before and of each frame of a tilt, e⁻/Å², and the voltage, kV."""
    during = np.asarray(motions.motion[tilt].exposure, dtype=float)
    return float(series.pre_exposure[tilt]) + np.cumsum(during) - during, during, series.optics.voltage


def frame_weights(series: TiltSeries, motions: MovieMotions, tilt: int) -> ExposureWeights | None:
    """How the frames of a tilt are weighted; None where they are summed plainly."""
    if motions.weighting == "plain":
        return None
    before, during, voltage = exposures_of(series, motions, tilt)
    measured = motions.amplitude[tilt] if motions.weighting == "measured" else None
    return ExposureWeights(before=before, during=during, voltage=voltage, amplitude=measured)


def sum_anew(movies: Movies, series: TiltSeries, motions: MovieMotions, progress: Progress) -> TiltSeries:
    """The series with sums of all, odd and even frames of its used tilts. Images of other tilts stay."""
    halves = series.half_images or (np.zeros_like(series.images),) * 2
    outputs = [_scratch((series.number, *series.image_shape)) for _ in range(3)]
    for tilt in range(series.number):
        progress(tilt / series.number, f"sum of tilt {tilt + 1}")
        if motions.motion[tilt] is None or not series.use[tilt]:
            made = (series.images[tilt], *(half[tilt] for half in halves))
        else:
            weights = frame_weights(series, motions, tilt)
            sums = sum_frames(movies.frames(tilt), motions.motion[tilt], movies.pixel_size, weights)
            sums = bin_sums(sums, motions.reading.binning)
            made = (sums.odd + sums.even, sums.odd, sums.even)
        for output, image in zip(outputs, made, strict=True):
            output[tilt] = image
    images, odd, even = outputs
    return replace(series, images=images, half_images=(odd, even), image_names=(), half_image_names=None)


def _scratch(shape: tuple[int, int, int]) -> np.ndarray:
    """Zeros on disk in a file without a name: three stacks of a whole series are more than memory should hold."""
    return np.memmap(tempfile.TemporaryFile(), np.float32, "w+", shape=shape)  # noqa: SIM115  closed with the map
