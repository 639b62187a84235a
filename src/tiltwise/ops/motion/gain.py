"""What a camera adds to its frames: uneven gain, whose reference may lie in any of eight ways, and defective pixels.

Raw counts n of a pixel of gain g (by which they are to be multiplied) have the mean of the beam over g. So the mean raw
frame, freed of the specimen by taking off what is smooth, is correlated with 1 / g over all pixels. With p pixels, the
correlation of unrelated patterns has a standard deviation of 1 / sqrt(p): the right one of sixteen (eight orientations;
to be multiplied or divided by) stands out from a single movie.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import poisson

from tiltwise.data.errors import InputError

ORIENTATIONS = (
    "as it is",
    "turned by 90°",
    "turned by 180°",
    "turned by 270°",
    "mirrored in x",
    "mirrored in x, then turned by 90°",
    "mirrored in x, then turned by 180°",
    "mirrored in x, then turned by 270°",
)
"""In this order; turns are counter-clockwise with row 0 at the bottom."""
_SMOOTH = 15
_CLEAR = 6.0
"""Standard deviations by which the best orientation must exceed zero, and the next best."""
_FALSE_ALARMS = 0.5
"""Sound pixels of a whole camera that may be called defective."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GainFit:
    """How a gain reference fits raw frames."""

    orientation: int
    """Index in ORIENTATIONS."""
    inverted: bool
    """The reference holds sensitivities, by which counts are divided."""
    correlation: np.ndarray
    """(8,) of the mean raw frame with 1 / gain in each orientation; nan where the shape does not fit."""
    certain: bool
    """The best stands out from zero and from the second by six standard deviations."""


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image (y, x) in one of the eight ORIENTATIONS."""
    if orientation >= 4:
        image = image[:, ::-1]
    return np.rot90(image, -(orientation % 4))  # rows rise: numpy's turn, clockwise on a screen, is reversed


def match_size(gain: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The reference as it is, or each of its pixels repeated where frames (y, x) have 2 or 4 samples for each pixel."""
    for factor in (2, 4):
        if sorted(n * factor for n in gain.shape) == sorted(shape):
            return np.repeat(np.repeat(gain, factor, axis=0), factor, axis=1)
    return gain


def fit_gain(gain: np.ndarray, raw: np.ndarray) -> GainFit:
    """Find how a gain reference (y, x) is to be laid on the mean or summed raw frames (y, x).

    Raises InputError where it fits in no orientation.
    """
    gain, raw = np.asarray(gain, np.float32), np.asarray(raw, np.float32)
    sound = np.isfinite(gain) & (gain > 0)
    if sorted(gain.shape) != sorted(raw.shape):
        (height, width), (rows, columns) = gain.shape, raw.shape
        raise InputError(f"the gain reference is {width} × {height} px, but frames are {columns} × {rows}")
    inverse = np.where(sound, 1 / np.where(sound, gain, 1), np.nan)
    pattern, seen = _roughness(inverse), _roughness(raw / max(float(raw.mean()), 1e-12))
    correlation = np.full(8, np.nan)
    for orientation in range(8):
        laid = orient(pattern, orientation)
        if laid.shape == seen.shape:
            correlation[orientation] = _correlation(laid, seen)
    strength = np.sort(np.abs(correlation[np.isfinite(correlation)]))[::-1]
    best = int(np.nanargmax(np.abs(correlation)))
    clear = _CLEAR / math.sqrt(raw.size)
    certain = strength[0] > clear and (len(strength) < 2 or strength[0] - strength[1] > clear)
    return GainFit(
        orientation=best, inverted=bool(correlation[best] < 0), correlation=correlation, certain=bool(certain)
    )


def lay_gain(gain: np.ndarray, orientation: int, *, inverted: bool) -> np.ndarray:
    """(y, x) float32 by which raw counts are multiplied, with mean 1 over sound pixels, and 0 where the
    reference has no value."""
    laid = np.ascontiguousarray(orient(np.asarray(gain, np.float32), orientation))
    sound = np.isfinite(laid) & (laid > 0)
    factor = np.where(sound, 1 / np.where(sound, laid, 1), 0) if inverted else np.where(sound, laid, 0)
    mean = float(factor[sound].mean()) if sound.any() else 1.0
    return (factor / mean).astype(np.float32)


def count_deviation(total: np.ndarray, gain: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) deviation of each pixel's counts (y, x), times gain, from the mean around it, in units of the root of that
    mean; and the mean."""
    expected = total.astype(np.float32) if gain is None else total * gain
    around = uniform_filter(expected, _SMOOTH, mode="nearest")
    return (expected - around) / np.sqrt(np.maximum(around, 1e-6)), around


def find_defects(total: np.ndarray, gain: np.ndarray | None = None) -> np.ndarray:
    """(y, x) bool: pixels without gain, and those whose total raw counts (y, x) no beam explains.

    The mean around a pixel tells what to expect; counts scatter as a Poisson distribution does, or more if the camera's
    do, measured by their median deviation. The bound is where half a sound pixel of the whole camera would lie outside.
    """
    deviation, around = count_deviation(total, gain)
    spread = max(1.4826 * float(np.median(np.abs(deviation[::7, ::5]))), 1e-6)
    bad = deviation > _upper_bound(around, total.size) * max(spread, 1.0)
    bad |= (total == 0) & (around > math.log(total.size / _FALSE_ALARMS))  # a sound pixel may count nothing at less
    return bad if gain is None else bad | (gain == 0)


def replacements(bad: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(defect,) flat indices of defective pixels and of the sound neighbours, chosen at random, whose counts are put in
    their place, so that they scatter as counts do. Neighbours are sought farther away where there are none."""
    rows, columns = np.nonzero(bad)
    height, width = bad.shape
    source_row, source_column, open_ = rows.copy(), columns.copy(), np.ones(len(rows), bool)
    rng = np.random.default_rng(seed)
    for attempt in range(200):
        if not open_.any():
            break
        reach = 1 + attempt // 8
        dy, dx = rng.integers(-reach, reach + 1, (2, int(open_.sum())))
        y, x = np.clip(rows[open_] + dy, 0, height - 1), np.clip(columns[open_] + dx, 0, width - 1)
        source_row[open_], source_column[open_] = y, x
        still = np.zeros_like(open_)
        still[open_] = bad[y, x]
        open_ = still
    return rows * width + columns, source_row * width + source_column


def correct_frame(
    raw: np.ndarray, gain: np.ndarray | None, defects: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """(y, x) float32: raw counts times gain, defective pixels replaced."""
    frame = raw.astype(np.float32)
    if gain is not None:
        frame *= gain
    if defects is not None and len(defects[0]):
        flat = frame.reshape(-1)
        flat[defects[0]] = flat[defects[1]]
    return frame


def _roughness(image: np.ndarray) -> np.ndarray:
    """What is left of an image without its smooth part; 0 where it has no value."""
    valid = np.isfinite(image)
    filled = np.where(valid, image, np.nanmean(image)).astype(np.float32)
    return np.where(valid, filled - uniform_filter(filled, _SMOOTH, mode="nearest"), 0)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    limit = 6 * float(b.std())
    b = np.clip(b, -limit, limit)  # a hot pixel must not decide
    norm = math.sqrt(float((a * a).sum(dtype=np.float64)) * float((b * b).sum(dtype=np.float64)))
    return float((a * b).sum(dtype=np.float64)) / max(norm, 1e-30)


def _upper_bound(mean: np.ndarray, pixels: int) -> np.ndarray:
    """Deviation, in units of sqrt(mean), that counts of a Poisson distribution exceed in half of one of all pixels."""
    table = np.geomspace(1e-3, 1e5, 81)
    bound = (poisson.isf(_FALSE_ALARMS / pixels, table) + 0.5 - table) / np.sqrt(table)
    return np.interp(mean, table, bound)
