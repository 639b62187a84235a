"""Alignment metadata of the CryoET Data Portal (alignment_metadata.json).

Each entry of per_section_alignment_parameters places the point X of the tomogram, in pixels from its middle, in the raw
image `z_index` (the portal's own converter, cryoet-alignment, io/cryoet_data_portal/alignment.py, which checked it on a
deposit):

    image = M · [Ry(tilt_angle) · Rx(volume_x_rotation) · X]_xy + (x_offset, y_offset) + n / 2,   M = in_plane_rotation

with offsets in pixels of the tilt series, although the schema says Å. M is the turn by our tilt_axis_angle; our shift
is the offset times the pixel size, moved by the difference of the centres, n / 2 there and n // 2 here. tilt_angle
includes tilt_offset. Sections without an entry were left out. volume_offset and affine_transformation_matrix place the
tomogram among others and move no projection; a matrix other than the identity is said so.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.alignment import Alignment
from tiltwise.io.text_tables import read_text

_LARGEST_DISTORTION = 0.05
_KEYS = ("z_index", "tilt_angle", "volume_x_rotation", "x_offset", "y_offset")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PortalAlignment:
    """The entries of an alignment, rows in the file's order."""

    section: np.ndarray
    """(row,) index in the raw stack, 0 first."""
    tilt_angle: np.ndarray
    """(row,) degrees."""
    x_rotation: np.ndarray
    """(row,) degrees."""
    in_plane: np.ndarray
    """(row, 2, 2) matrix M."""
    offset_px: np.ndarray
    """(row, 2) x, y, px."""
    volume_size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """x, y, z of the tomogram, Å; 0 where not stated."""
    local: bool = False
    """Whether the deposit's own alignment has a local part, which this file does not hold."""
    moved: bool = False
    """Whether affine_transformation_matrix is not the identity."""


def read_portal(path: str | Path) -> PortalAlignment:
    """Read an alignment_metadata.json. InputError for what is no such file, or lacks or garbles an entry."""
    try:
        content = json.loads(read_text(path, encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: this is not valid JSON ({' '.join(str(error).split())[:80]})") from None
    entries = content.get("per_section_alignment_parameters") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: has no per_section_alignment_parameters, so it is no alignment of the CryoET portal")
    rows = np.array([_row(path, number, entry) for number, entry in enumerate(entries)])
    sections = rows[:, 0]
    if (sections != np.round(sections)).any() or (sections < 0).any() or len(np.unique(sections)) < len(sections):
        raise InputError(f"{path}: z_index must be a different whole number in each entry")
    size = content.get("volume_dimension")
    return PortalAlignment(
        section=sections.astype(int),
        tilt_angle=rows[:, 1],
        x_rotation=rows[:, 2],
        offset_px=rows[:, 3:5],
        in_plane=rows[:, 5:].reshape(-1, 2, 2),
        volume_size=tuple(_length(size, axis) for axis in "xyz"),
        local=str(content.get("alignment_type", "")).upper() == "LOCAL",
        moved=_is_moved(content.get("affine_transformation_matrix")),
    )


def write_portal(path: str | Path, alignment: PortalAlignment) -> None:
    """Write an alignment_metadata.json with the keys of the portal."""
    x, y, z = alignment.volume_size
    columns = (alignment.section, alignment.tilt_angle, alignment.x_rotation, alignment.in_plane, alignment.offset_px)
    content = {
        "alignment_type": "LOCAL" if alignment.local else "GLOBAL",
        "format": "TILTWISE",
        "is_portal_standard": True,
        "tilt_offset": 0.0,
        "x_rotation_offset": 0.0,
        "volume_offset": {"x": 0, "y": 0, "z": 0},
        "volume_dimension": {"x": x, "y": y, "z": z},
        "affine_transformation_matrix": np.eye(4).tolist(),
        "per_section_alignment_parameters": [
            {
                "z_index": int(section),
                "tilt_angle": float(tilt),
                "volume_x_rotation": float(x_rotation),
                "in_plane_rotation": np.asarray(matrix).tolist(),
                "x_offset": float(offset[0]),
                "y_offset": float(offset[1]),
            }
            for section, tilt, x_rotation, matrix, offset in zip(*columns, strict=True)
        ],
    }
    Path(path).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def from_portal(
    alignment: PortalAlignment, *, pixel_size: float, image_shape: tuple[int, int], path: str | Path
) -> Alignment:
    """The alignment in our geometry; pixel size Å and (y, x) size px of the raw images. InputError where a matrix is
    not near a rotation."""
    matrix = alignment.in_plane
    axis = np.arctan2(matrix[:, 1, 0] - matrix[:, 0, 1], matrix[:, 0, 0] + matrix[:, 1, 1])
    distortion = np.abs(matrix - _turn(axis)).max(axis=(1, 2))
    if distortion.max() > _LARGEST_DISTORTION:
        raise InputError(f"{path}: in_plane_rotation of entry {int(distortion.argmax())} is no rotation")
    notes = ("the deposit's local alignment is not in this file",) if alignment.local else ()
    if alignment.moved:
        notes += ("affine_transformation_matrix is not applied: it moves the tomogram, no projection",)
    return Alignment(
        program="the CryoET portal's alignment",
        geometry=TiltGeometry(
            tilt_angle=alignment.tilt_angle,
            tilt_axis_angle=np.degrees(axis),
            x_tilt=alignment.x_rotation,
            shift=(alignment.offset_px + _centre_difference(image_shape)) * pixel_size,
        ),
        use=np.ones(len(alignment.section), dtype=bool),
        section=alignment.section,
        notes=notes,
    )


def to_portal(
    geometry: TiltGeometry, use: np.ndarray, section: np.ndarray, *, pixel_size: float, image_shape: tuple[int, int]
) -> PortalAlignment:
    """The portal's entries of our geometry: one for each used tilt."""
    kept = np.flatnonzero(use)
    return PortalAlignment(
        section=section[kept],
        tilt_angle=geometry.tilt_angle[kept],
        x_rotation=geometry.x_tilt[kept],
        in_plane=_turn(np.radians(geometry.tilt_axis_angle[kept])),
        offset_px=geometry.shift[kept] / pixel_size - _centre_difference(image_shape),
    )


def _row(path: str | Path, number: int, entry: Any) -> list[float]:
    where = f"{path}: entry {number} of per_section_alignment_parameters"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is no object")
    values = [_value(where, key, entry.get(key, 0.0 if key == "volume_x_rotation" else None)) for key in _KEYS]
    matrix = entry.get("in_plane_rotation")
    if not isinstance(matrix, list) or len(matrix) != 2 or any(not isinstance(r, list) or len(r) != 2 for r in matrix):
        raise InputError(f"{where}: in_plane_rotation is no 2 × 2 matrix")
    return values + [_value(where, "in_plane_rotation", value) for row in matrix for value in row]


def _value(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise InputError(f"{where}: {key} is {str(value)[:40]}; a finite number is expected")
    return float(value)


def _length(size: Any, axis: str) -> float:
    value = size.get(axis) if isinstance(size, dict) else None
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if known else 0.0


def _is_moved(matrix: Any) -> bool:
    return matrix is not None and matrix != np.eye(4).tolist()


def _turn(angle: np.ndarray) -> np.ndarray:
    """(row, 2, 2) counter-clockwise turns by angles in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)


def _centre_difference(image_shape: tuple[int, int]) -> np.ndarray:
    """(2,) the portal's image centre n / 2 minus ours, n // 2, in x, y, px."""
    return np.array([n / 2 - n // 2 for n in reversed(image_shape)])
