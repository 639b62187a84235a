"""Picks of copick: `ExperimentRuns/<run>/Picks/<user>_<session>_<object>.json`, and the configuration of objects.

A location is Å from the middle of the first voxel of the run's tomogram; the 4 × 4 matrix of a point turns the object
into the tomogram, so its rotation is ours (copick's data model). instance_id numbers our regions from 1, 0 for none.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.io.particle_list import ParticleList
from tiltwise.io.text_tables import LARGEST_NUMBER, read_text

USER, SESSION = "tiltwise", "0"
"""Session 0 marks picks of a program, not of a person."""
_LARGEST_DISTORTION = 1e-3


def read_copick(path: str | Path) -> ParticleList:
    """Read one picks file; the tomogram is its run_name, else the folder of the run. InputError for what is none."""
    path = Path(path)
    content = _read_json(path)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list) or not points:
        raise InputError(f"{path}: holds no points, so it is no picks file of copick")
    if content.get("unit", "angstrom") != "angstrom":
        raise InputError(f"{path}: its unit is {str(content['unit'])[:20]!r}; picks are read in angstrom")
    run = content.get("run_name")
    rows = [_point(f"{path}: point {number}", point) for number, point in enumerate(points)]
    matrices = np.array([matrix for _, matrix, _, _ in rows])
    return ParticleList(
        tomogram=np.full(len(rows), run if isinstance(run, str) and run else path.parent.parent.name),
        place=np.array([location for location, _, _, _ in rows]),
        rotation=Rotation.from_matrix(matrices),
        score=np.array([score for _, _, score, _ in rows]),
        half_set=np.zeros(len(rows), dtype=np.int64),
        region=np.array([max(instance, 0) - 1 for _, _, _, instance in rows], dtype=np.int64),
        unit=1.0,
    )


def write_copick(folder: Path, listed: ParticleList, *, voxel_size: float, object_name: str = "particle") -> Path:
    """Write the picks of one run, the list's tomogram, below `folder`; the new file. The list is in Å."""
    run = str(listed.tomogram[0])
    path = folder / "ExperimentRuns" / run / "Picks" / f"{USER}_{SESSION}_{object_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = (listed.place, listed.rotation.as_matrix(), listed.score, listed.region)
    content = {
        "pickable_object_name": object_name,
        "user_id": USER,
        "session_id": SESSION,
        "run_name": run,
        "voxel_spacing": voxel_size,
        "unit": "angstrom",
        "trust_orientation": True,
        "points": [
            {
                "location": dict(zip("xyz", place.tolist(), strict=True)),
                "transformation_": np.block([[matrix, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]).tolist(),
                "instance_id": int(region) + 1,
                "score": float(score) if np.isfinite(score) else None,
            }
            for place, matrix, score, region in zip(*columns, strict=True)
        ],
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def write_copick_config(folder: Path, *, object_name: str = "particle", radius: float | None = None) -> Path:
    """Write the configuration of a copick project in this folder, without tomograms of its own; the new file."""
    one: dict[str, Any] = {"name": object_name, "is_particle": True, "label": 1}
    content = {
        "config_type": "filesystem",
        "name": "tiltwise",
        "description": "particles of a tiltwise project",
        "version": "0.2.0",
        "pickable_objects": [one if radius is None else one | {"radius": radius}],
        "overlay_root": f"local://{folder.resolve()}/",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    path = folder / "copick.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: this is not valid JSON ({' '.join(str(error).split())[:80]})") from None


def _point(where: str, point: Any) -> tuple[list[float], np.ndarray, float, int]:
    """Location, rotation matrix, score and instance of one point."""
    if not isinstance(point, dict) or not isinstance(point.get("location"), dict):
        raise InputError(f"{where} has no location")
    location = [_value(where, axis, point["location"].get(axis)) for axis in "xyz"]
    score, instance = point.get("score"), point.get("instance_id")
    matrix = point.get("transformation_")
    rows = np.eye(4).tolist() if matrix is None else matrix
    if not isinstance(rows, list) or len(rows) != 4 or any(not isinstance(r, list) or len(r) != 4 for r in rows):
        raise InputError(f"{where}: transformation_ is no 4 × 4 matrix")
    full = np.array([[_value(where, "transformation_", value) for value in row] for row in rows])
    turn = full[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > _LARGEST_DISTORTION or np.linalg.det(turn) < 0:
        raise InputError(f"{where}: transformation_ is no rotation")
    if np.any(full[:3, 3]):
        raise InputError(f"{where}: transformation_ holds a translation, which is not read; put it into location")
    return (
        location,
        turn,
        np.nan if score is None else _value(where, "score", score),
        0 if instance is None else int(_value(where, "instance_id", instance)),
    )


def _value(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST_NUMBER:
        raise InputError(f"{where}: {key} is {str(value)[:40]}; a finite number is expected")
    return float(value)
