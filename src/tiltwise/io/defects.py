"""Defect maps of cameras: an image that is not 0 where a pixel is defective, or a list of rectangles."""

from pathlib import Path

import numpy as np

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.io.images import MRC_SUFFIXES, TIFF_SUFFIXES
from tiltwise.io.movies import read_gain
from tiltwise.io.text_tables import read_text

_LARGEST = 1 << 17
"""Pixels along a side that no camera has."""


def read_defects(path: str | Path) -> DefectMap:
    """An MRC or TIFF image, or text with x y width height in pixels on each line (# begins a comment). InputError, in
    one line, for anything else."""
    path = Path(path)
    if path.suffix.lower() in (*MRC_SUFFIXES, *TIFF_SUFFIXES):
        image, _ = read_gain(path, what="a defect map")
        return DefectMap(rectangles=_runs(image != 0), shape=image.shape)
    rows = []
    for line in read_text(path).splitlines():
        text = line.split("#")[0].split()
        if not text:
            continue
        try:
            x, y, width, height = (int(word) for word in text)
        except ValueError:
            x, y, width, height = -1, -1, 0, 0
        if min(x, y) < 0 or min(width, height) < 1 or max(x + width, y + height) > _LARGEST:
            raise InputError(f"{path}: each line of a defect list is x y width height in whole pixels: {line[:60]!r}")
        rows.append((x, y, width, height))
    return DefectMap(rectangles=np.array(rows, int).reshape(-1, 4), shape=None)


def _runs(bad: np.ndarray) -> np.ndarray:
    """(run, 4) rectangles one row high that cover bad (y, x) bool."""
    edges = np.diff(np.pad(bad, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1]
    return np.stack([first, row, last - first, np.ones_like(row)], axis=1)
