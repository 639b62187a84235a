"""What is known of the camera: its gain and defective pixels, laid on the frames as the first movie shows."""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.data.motion import MovieReading
from tiltwise.ops.motion.defect_map import defective_pixels, find_orientation
from tiltwise.ops.motion.gain import (
    ORIENTATIONS,
    count_deviation,
    find_defects,
    fit_gain,
    lay_gain,
    match_size,
    orient,
    replacements,
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Camera:
    """What is done to every raw frame."""

    gain: np.ndarray | None
    """(y, x) by which counts are multiplied."""
    gain_stated: str
    """How the reference lay."""
    defects: np.ndarray | None
    """(y, x) bool, those of the map."""
    defects_stated: str
    """How the map lay."""
    gain_lies: tuple[int, bool] | None = None
    """Orientation of the reference, and whether counts are divided by it; None without one."""
    defects_lie: int | None = None
    """Orientation of the map; None without one."""


def camera_as_read(
    gain: np.ndarray | None, defects: DefectMap | None, shape: tuple[int, int], reading: MovieReading
) -> Camera:
    """The camera as it was found to lie when movies with frames (y, x) were first read. InputError where the reference
    is not that of then."""
    if (gain is None) != (reading.gain_orientation is None):
        raise InputError("the gain reference must be that with which the motion was corrected")
    laid = bad = None
    if gain is not None:
        laid = lay_gain(match_size(gain, shape), reading.gain_orientation, inverted=reading.gain_inverted)
    if defects is not None and reading.defects_orientation is not None:
        bad = orient(defective_pixels(defects, shape, reading.samples), reading.defects_orientation)
    if any(one is not None and one.shape != shape for one in (laid, bad)):
        raise InputError(f"gain reference or defect map do not fit the frames of {shape[1]} × {shape[0]} px")
    return Camera(gain=laid, gain_stated="as before", defects=bad, defects_stated="as before")


def calibrate(
    gain: np.ndarray | None,
    defects: DefectMap | None,
    raw: list[np.ndarray],
    samples: int,
    gain_orientation: int | None,
) -> Camera:
    """How reference and map lie on the frames, told by those of one movie, which have so many samples for each pixel of
    the camera along a side; the reference as `gain_orientation` says, where it does."""
    total = _total(raw)
    laid, gain_stated, gain_lies = _lay_gain(gain, total, gain_orientation)
    mask, defects_stated, defects_lie = _lay_defects(defects, total, laid, samples)
    return Camera(
        gain=laid,
        gain_stated=gain_stated,
        defects=mask,
        defects_stated=defects_stated,
        gain_lies=gain_lies,
        defects_lie=defects_lie,
    )


def defects_of(raw: list[np.ndarray], camera: Camera, *, find: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """As `ops.motion.gain.replacements`: the pixels of the map, and those found in this movie; None without either."""
    if not find and camera.defects is None:
        return None
    bad = find_defects(_total(raw), camera.gain) if find else np.zeros(raw[0].shape, bool)
    return replacements(bad if camera.defects is None else bad | camera.defects)


def _lay_gain(
    gain: np.ndarray | None, total: np.ndarray, orientation: int | None
) -> tuple[np.ndarray | None, str, tuple[int, bool] | None]:
    if gain is None:
        return None, "no gain reference", None
    gain = match_size(gain, total.shape)
    fit = fit_gain(gain, total)
    if orientation is not None:
        inverted = fit.inverted and fit.certain
        laid = lay_gain(gain, orientation, inverted=inverted)
        if laid.shape != total.shape:
            raise InputError(f"the gain reference does not fit the frames when {ORIENTATIONS[orientation]}")
        return laid, f"{ORIENTATIONS[orientation]}, as given", (orientation, inverted)
    if not fit.certain:
        raise InputError("the gain reference fits the frames in no orientation; give gain_orientation, or no reference")
    sense = "counts divided by it" if fit.inverted else "counts multiplied by it"
    stated = f"{ORIENTATIONS[fit.orientation]}, {sense} (correlation {abs(fit.correlation[fit.orientation]):.3f})"
    return lay_gain(gain, fit.orientation, inverted=fit.inverted), stated, (fit.orientation, fit.inverted)


def _lay_defects(
    defects: DefectMap | None, total: np.ndarray, gain: np.ndarray | None, samples: int
) -> tuple[np.ndarray | None, str, int | None]:
    if defects is None:
        return None, "no defect map", None
    bad = defective_pixels(defects, total.shape, samples)
    orientation, certain = find_orientation(bad, count_deviation(total, gain)[0])
    number = f"{int(bad.sum())} pixels"
    if certain:
        return orient(bad, orientation), f"{ORIENTATIONS[orientation]}, {number}", orientation
    if bad.shape != total.shape:
        raise InputError("the defect map fits the frames only when turned, and they do not tell which way")
    return bad, f"{ORIENTATIONS[0]}, {number}; the frames do not tell how it lies", 0


def _total(raw: list[np.ndarray]) -> np.ndarray:
    total = np.zeros(raw[0].shape, np.float32)
    for frame in raw:
        total += frame
    return total
