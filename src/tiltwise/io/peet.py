"""PEET's particles: an IMOD model for the places in a tomogram and, beside it, a motive list (.csv) for the rest.

The csv has 20 columns and a line for each point of the model, in the order of objects, contours and points:

    1 CCC · 4 pIndex · 11-13 xOffset, yOffset, zOffset · 17 EulerZ(1) · 18 EulerZ(3) · 19 EulerX(2)

Offsets are voxels and are added to the model's point. A = R('zxz', [EulerZ(1), EulerX(2), EulerZ(3)]), as in AV3, from
which the list stems. The model counts as IMOD does (io/imod_model.py). Each contour of several is a region.
"""

import csv
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.euler import euler_to_rotation, rotation_to_euler
from tiltwise.io.imod_model import ImodObject, contour_at, model_indices, read_model, write_model
from tiltwise.io.particle_list import ParticleList
from tiltwise.io.text_tables import LARGEST_NUMBER, number_row, read_text

_HEADER = (
    "CCC,reserved,reserved,pIndex,wedgeWT,NA,NA,NA,NA,NA,xOffset,yOffset,zOffset,NA,NA,reserved,"
    "EulerZ(1),EulerZ(3),EulerX(2),reserved"
)
_COLUMNS = 20
_ANGLES = [16, 18, 17]


def read_peet(path: str | Path) -> ParticleList:
    """Read a model and the motive list beside it (`<stem>.csv` or the one `<stem>_*.csv`); without one the rotations
    are the identity. The tomogram is the model's stem. InputError where the two differ in number."""
    path = Path(path)
    model = read_model(path)
    contours = [model_indices(model, contour) for one in model.objects for contour in one.contours]
    contours = [points for points in contours if len(points)]
    if not contours:
        raise InputError(f"{path}: the model holds no point")
    place = np.concatenate(contours)
    region = np.repeat(np.arange(len(contours)) if len(contours) > 1 else [-1], [len(points) for points in contours])
    rotation, score = Rotation.from_quat(np.tile([0.0, 0.0, 0.0, 1.0], (len(place), 1))), np.full(len(place), np.nan)
    motive_list = find_motive_list(path)
    if motive_list is not None:
        table = _read_csv(motive_list)
        if len(table) != len(place):
            raise InputError(f"{motive_list}: has {len(table)} particles, but {path.name} has {len(place)} points")
        place = place + table[:, 10:13]
        rotation, score = euler_to_rotation(table[:, _ANGLES], "stopgap"), table[:, 0]
    return ParticleList(
        tomogram=np.full(len(place), path.stem),
        place=place,
        rotation=rotation,
        score=score,
        half_set=np.zeros(len(place), dtype=np.int64),
        region=region.astype(np.int64),
    )


def find_motive_list(path: Path) -> Path | None:
    """The .csv beside a model; InputError where several may be meant."""
    own = path.with_suffix(".csv")
    found = [own] if own.is_file() else sorted(path.parent.glob(f"{path.stem}_*.csv"))
    if len(found) > 1:
        raise InputError(f"{path}: several motive lists lie beside it, leave one: {', '.join(p.name for p in found)}")
    return found[0] if found else None


def write_peet(path: str | Path, listed: ParticleList, grid: TomogramGrid) -> list[Path]:
    """Write the model and the motive list of one tomogram, particles of a region together; the new files."""
    path = Path(path)
    order = np.argsort(listed.region, kind="stable")
    place, region, voxel = listed.place[order], listed.region[order], np.round(listed.place[order])
    apart = (np.diff(region) != 0) | ((region[1:] < 0) & (region.max() >= 0))  # beside regions, a lone one is its own
    own = np.split(np.arange(len(order)), np.flatnonzero(apart) + 1)
    objects = [ImodObject(name="particles", contours=tuple(contour_at(voxel[points]) for points in own))]
    write_model(path, objects, size=grid.shape[::-1], pixel_size=grid.voxel_size)
    angles = rotation_to_euler(listed.rotation[order], "stopgap")
    table = np.zeros((len(order), _COLUMNS))
    table[:, 0], table[:, 3] = listed.score[order], np.arange(1, len(order) + 1)
    table[:, 10:13], table[:, _ANGLES] = place - voxel, angles
    lines = [_HEADER, *(",".join(f"{value:.10g}" for value in row) for row in table)]
    motive_list = path.with_suffix(".csv")
    motive_list.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path, motive_list]


def _read_csv(path: Path) -> np.ndarray:
    """(particle, 20)."""
    rows = []
    for number, words in enumerate(csv.reader(read_text(path).splitlines(), strict=False), start=1):
        if not words or (number == 1 and not _is_number(words[0])):
            continue
        score, words[0] = words[0], "0"  # may be nan
        rows.append(number_row(path, number, words[:_COLUMNS], _COLUMNS))
        value = float(score) if _is_number(score) else np.nan
        rows[-1][0] = value if abs(value) < LARGEST_NUMBER else np.nan
    return np.array(rows).reshape(-1, _COLUMNS)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
