"""How a map of defective pixels lies on the frames: as it makes them count most unlike their neighbours.

With z a pixel's deviation from what is around it (`ops.motion.gain`), the mean of min(|z|, 6) over the n pixels of the
map is compared with that over all pixels; the standard deviation of the former, for a map laid anywhere, is that of one
pixel over sqrt(n).
"""

import math

import numpy as np

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.ops.motion.gain import orient

_CLEAR = 6.0
"""Standard deviations by which the best orientation must exceed chance, and the next best."""
_LARGEST = 6.0
"""Most that one pixel says."""


def defective_pixels(defects: DefectMap, shape: tuple[int, int], samples: int) -> np.ndarray:
    """(y, x) bool in the map's own orientation, for frames (y, x) with so many samples for each pixel of the map along
    a side; of a map that states its size any whole number that fits is taken. InputError where it does not fit."""
    own = tuple(n // samples for n in shape)
    if defects.shape is not None:
        samples = next((f for f in (1, 2, 4) if sorted(n * f for n in defects.shape) == sorted(shape)), 0)
        if not samples:
            (height, width), (rows, columns) = defects.shape, shape
            raise InputError(f"the defect map is {width} × {height} px, but frames are {columns} × {rows}")
        own = defects.shape
    bad = np.zeros(own, bool)
    for x, y, width, height in defects.rectangles:
        if x + width > own[1] or y + height > own[0]:
            raise InputError(f"the defect map names pixels up to {x + width}, {y + height}, beyond the camera's {own}")
        bad[y : y + height, x : x + width] = True
    return bad.repeat(samples, axis=0).repeat(samples, axis=1)


def find_orientation(bad: np.ndarray, deviation: np.ndarray) -> tuple[int, bool]:
    """Of eight, the orientation in which bad (y, x) covers the most deviating pixels (y, x, in standard deviations),
    and whether it stands out."""
    strength = np.minimum(np.abs(deviation), _LARGEST)
    score = np.full(8, -np.inf)
    for orientation in range(8):
        laid = orient(bad, orientation)
        if laid.shape == strength.shape and laid.any():
            score[orientation] = float(strength[laid].mean())
    best, second = np.sort(score)[::-1][:2]
    clear = _CLEAR * float(strength.std()) / math.sqrt(max(int(bad.sum()), 1))
    return int(score.argmax()), bool(best - float(strength.mean()) > clear and best - second > clear)
