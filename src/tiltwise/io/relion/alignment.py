"""The alignment alone from RELION's star files, without its image files: version 5 (shifts and angles) and 4
(matrices).

RELION 5 writes our own geometry (docs/conventions.md). RELION 4 writes for each tilt the rows rlnTomoProjX, Y, Z of a
matrix P with image index = P · (x, y, z, 1), all pixels of the unbinned images, x, y, z array indices of the tomogram
of rlnTomoSizeX/Y/Z (src/jaz/tomography/tomogram.cpp and imod_import.cpp). With P = [R | t], R = Rz Ry Rx and the
tomogram's centre c = size // 2:

    shift = (R c + t)_xy - image centre,   tilt_axis_angle, tilt_angle, x_tilt = the intrinsic ZYX angles of R
"""

import re
from pathlib import Path, PureWindowsPath

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.alignment import Alignment, image_stem
from tiltwise.io.relion.tilt_series import column_or_none, read_geometry, relion_root
from tiltwise.io.star import Block, read_star, single_number, texts
from tiltwise.io.text_tables import LARGEST_NUMBER

_PROJECTION = tuple(f"rlnTomoProj{axis}" for axis in "XYZ")
_SIZES = tuple(f"rlnTomoSize{axis}" for axis in "XYZ")
_LARGEST_DISTORTION = 0.05


def read_relion_alignment(path: str | Path, name: str, *, pixel_size: float, image_shape: tuple[int, int]) -> Alignment:
    """The alignment of one series from a table of series or from its own star file.

    pixel_size Å and (y, x) size px of the series it is for. InputError where the file does not list the series or holds
    no alignment of it.
    """
    path = Path(path)
    blocks = read_star(path)
    if name in blocks:
        own, table, row = path, blocks[name], _global_row(blocks, name, path)
    else:
        row = _global_row(blocks, name, path)
        if not row or "rlnTomoTiltSeriesStarFile" not in row:
            raise InputError(f"{path}: does not list the series {name!r}")
        file = texts(row, "rlnTomoTiltSeriesStarFile", path)[0]
        own = relion_root(path, [file]) / file
        blocks = read_star(own)
        if name not in blocks:
            raise InputError(f"{own}: has no block data_{name}")
        table = blocks[name]
    if _PROJECTION[0] in table:
        return _from_matrices(table, row, own, pixel_size, image_shape)
    geometry = read_geometry(table, own)
    if geometry is None:
        raise InputError(f"{own}: holds no alignment of {name} (no column _rlnTomoZRot)")
    _check_finite(geometry, own)
    named = next((column for column in ("rlnMicrographName", "rlnMicrographMovieName") if column in table), None)
    return Alignment(
        program="RELION",
        geometry=geometry,
        use=np.ones(len(geometry.tilt_angle), dtype=bool),
        image_stems=None if named is None else tuple(_stem(text) for text in texts(table, named, own)),
        stage_tilt_angle=column_or_none(table, "rlnTomoNominalStageTiltAngle", own),
        defocus_handedness=_handedness(row, path),
    )


def _global_row(blocks: dict[str, Block], name: str, path: Path) -> Block:
    """The series' row of the table of series; empty if there is none."""
    table = blocks.get("global", {})
    if "rlnTomoName" not in table:
        return {}
    names = texts(table, "rlnTomoName", path)
    if name not in names:
        return {}
    place = names.index(name)
    return {key: values if isinstance(values, str) else values[place : place + 1] for key, values in table.items()}


def _handedness(row: Block, path: Path) -> int | None:
    value = single_number(row, "rlnTomoHand", path) if "rlnTomoHand" in row else None
    return int(value) if value in (1.0, -1.0) else None


def _from_matrices(table: Block, row: Block, path: Path, pixel_size: float, image_shape: tuple[int, int]) -> Alignment:
    if any(column not in row for column in _SIZES):
        raise InputError(
            f"{path}: holds RELION-4 projection matrices, but no rlnTomoSizeX/Y/Z of the tomogram in data_global"
        )
    matrix = np.stack([_matrix_rows(table, column, path) for column in _PROJECTION], axis=1)
    size = np.array([single_number(row, column, path) for column in _SIZES])
    if not np.isfinite(size).all() or (size < 1).any() or (size > 1e6).any():
        raise InputError(f"{path}: a tomogram of {size.tolist()} voxels makes no sense")
    turn = matrix[:, :, :3]
    determinant = np.linalg.det(turn)
    if (determinant < 0.5).any():
        raise InputError(f"{path}: the projection of tilt {int(determinant.argmin()) + 1} is no rotation")
    rotation = Rotation.from_matrix(turn)
    distortion = np.abs(rotation.as_matrix() - turn).max(axis=(1, 2))
    if distortion.max() > _LARGEST_DISTORTION:
        worst = int(distortion.argmax())
        raise InputError(
            f"{path}: the projection of tilt {worst + 1} departs from a rotation by {distortion[worst]:.2f}"
        )
    axis, tilt, x_tilt = rotation.as_euler("ZYX", degrees=True).T
    centre = turn @ (size // 2) + matrix[:, :, 3]
    return Alignment(
        program="RELION",
        geometry=TiltGeometry(
            tilt_angle=tilt,
            tilt_axis_angle=axis,
            x_tilt=x_tilt,
            shift=(centre[:, :2] - np.array([n // 2 for n in reversed(image_shape)])) * pixel_size,
        ),
        use=np.ones(len(tilt), dtype=bool),
        defocus_handedness=_handedness(row, path),
    )


def _matrix_rows(table: Block, column: str, path: Path) -> np.ndarray:
    """(tilt, 4) numbers written as [a,b,c,d]."""
    rows = []
    for number, text in enumerate(texts(table, column, path), start=1):
        words = re.sub(r"^\[|\]$", "", text.strip()).split(",")
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) != 4 or not np.isfinite(values).all() or max(map(abs, values)) > 1e7:
            raise InputError(f"{path}: _{column} in row {number} is {text[:40]!r}, not four numbers")
        rows.append(values)
    return np.array(rows).reshape(-1, 4)


def _check_finite(geometry: TiltGeometry, path: Path) -> None:
    columns = (geometry.tilt_angle, geometry.tilt_axis_angle, geometry.x_tilt, geometry.shift)
    if not all((np.abs(values) < LARGEST_NUMBER).all() for values in columns) or not len(geometry.tilt_angle):
        raise InputError(f"{path}: its alignment is empty or holds values that are no numbers")


def _stem(text: str) -> str:
    return image_stem(text) if "@" in text else PureWindowsPath(text).stem
