"""Movies as a camera leaves them: one MRC or TIFF file for each tilt, raw counts, and a gain reference beside them.

Rows run from the bottom up in memory and in MRC; TIFF rows run from the top down and are turned over both ways.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from tiltwise.data.deformation import SampleDeformation
from tiltwise.data.errors import InputError
from tiltwise.data.movie import FrameMotion
from tiltwise.io.images import TIFF_SUFFIXES
from tiltwise.io.mdoc import MdocSection, number
from tiltwise.io.mrc import read_mrc, write_mrc

MovieFormat = Literal["mrc", "tif"]


def write_movie(path: str | Path, frames: np.ndarray, pixel_size: float) -> None:
    """Write frames (frame, y, x) uint8; the suffix says whether as MRC (widened to 16 bits) or TIFF (LZW)."""
    path = Path(path)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        write_mrc(path, frames, pixel_size, stack=True)
        return
    with tifffile.TiffWriter(path) as tiff:
        for frame in frames:
            tiff.write(frame[::-1], compression="lzw", photometric="minisblack", metadata=None, software=False)


def read_movie(path: str | Path) -> np.ndarray:
    """(frame, y, x) of an MRC or TIFF movie. Raises InputError for a file that is neither, or not sound."""
    path = Path(path)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return read_mrc(path)[0]
    try:
        frames = tifffile.imread(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # tifffile raises many kinds for a damaged file
        raise InputError(f"{path}: this is not a sound TIFF file ({' '.join(str(error).split())})") from None
    if frames.ndim not in (2, 3):
        raise InputError(f"{path}: is no movie of grey frames (its shape is {frames.shape})")
    return frames.reshape(-1, *frames.shape[-2:])[:, ::-1]


def frame_exposures(section: MdocSection) -> np.ndarray | None:
    """(frame,) e⁻/Å² of an image section: from FrameDosesAndNumber (pairs of exposure and number of frames), or else
    ExposureDose shared among NumSubFrames; None where neither is stated."""
    words = section.keys.get("FrameDosesAndNumber", "").split()
    values = [number(word) for word in words]
    if values and len(values) % 2 == 0 and None not in values:
        return np.repeat(values[::2], np.array(values[1::2]).astype(int))
    total, count = number(section.keys.get("ExposureDose")), number(section.keys.get("NumSubFrames"))
    return None if not total or not count else np.full(int(count), total / count)


def write_motion(path: str | Path, motion: FrameMotion | None, deformation: SampleDeformation | None) -> None:
    """Write the true motion of a series as named arrays (.npz); what is None is left out."""
    arrays = {}
    for prefix, known in (("frames", motion), ("specimen", deformation)):
        if known is not None:
            arrays |= {f"{prefix}_{name}": np.asarray(getattr(known, name)) for name in known.__slots__}
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def read_motion(path: str | Path) -> tuple[FrameMotion | None, SampleDeformation | None]:
    """Read what `write_motion` wrote. Raises InputError for a file that is not such a file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            known = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: holds no motion ({error})") from None
    found = []
    for prefix, kind in (("frames", FrameMotion), ("specimen", SampleDeformation)):
        own = {name.removeprefix(f"{prefix}_"): value for name, value in known.items() if name.startswith(prefix)}
        if own and set(own) != set(kind.__slots__):
            raise InputError(f"{path}: lacks {', '.join(sorted(set(kind.__slots__) - set(own)))} of its {prefix}")
        found.append(kind(**{**own, "scale": float(own["scale"])}) if own else None)
    return found[0], found[1]
