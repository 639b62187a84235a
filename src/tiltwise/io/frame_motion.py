"""The true motion of a simulated series, as named arrays in one .npz file."""

from pathlib import Path

import numpy as np

from tiltwise.data.deformation import SampleDeformation
from tiltwise.data.errors import InputError
from tiltwise.data.motion import FrameMotion


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
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: holds no motion ({reason[:200]})") from None
    found = []
    for prefix, kind in (("frames", FrameMotion), ("specimen", SampleDeformation)):
        own = {name.removeprefix(f"{prefix}_"): value for name, value in known.items() if name.startswith(prefix)}
        if own and set(own) != set(kind.__slots__):
            raise InputError(f"{path}: lacks {', '.join(sorted(set(kind.__slots__) - set(own)))} of its {prefix}")
        found.append(kind(**{**own, "scale": float(own["scale"])}) if own else None)
    return found[0], found[1]
