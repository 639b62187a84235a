"""What symmetry a map shows that none was imposed on, and what follows from it where it is to be found."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.errors import InputError
from tiltwise.ops.maps.rotational_symmetry import RotationalSymmetry, find_rotational_symmetry
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.rotations import rotation_vector_to_matrix
from tiltwise.params.refine import WIDEST_CONE, RefineParams
from tiltwise.stages.refine.setup import Setup

_FIND = "find"
_DETAIL = 10.0  # spacings down to a tenth of the diameter are compared, or the resolution if coarser
_REACH = 6.0  # the axis lies within a sixth of the diameter of z


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FoundSymmetry:
    """A Cn that the halves show, and the motion of the reference that brings its axis onto z."""

    group: str
    motion: RigidMotion


def to_be_found(params: RefineParams) -> bool:
    """Whether the symmetry is asked of the data. Raises InputError where z is no axis of anything."""
    if params.symmetry.strip().lower() != _FIND:
        return False
    if not params.directions_given:
        raise InputError(
            f"refine: symmetry = {_FIND!r} looks for an axis near z, which needs starting directions (surface normals) "
            f"and search_cone <= {WIDEST_CONE:g}; name the symmetry, or refine in C1"
        )
    return True


def symmetry_of_halves(
    setup: Setup, maps: Mapping[int, torch.Tensor], resolution: float, params: RefineParams
) -> RotationalSymmetry:
    """The Cn that the half maps show about an axis near z (ops/maps/rotational_symmetry.py)."""
    diameter = params.particle_diameter
    return find_rotational_symmetry(
        maps[1].cpu(),
        maps[2].cpu(),
        setup.source.settings.pixel_size,
        radius=diameter / 2,
        height=diameter,
        resolution=max(resolution, diameter / _DETAIL, 2.2 * setup.source.settings.pixel_size),
        reach=diameter / _REACH,
    )


def symmetry_that_holds(found: RotationalSymmetry) -> FoundSymmetry | None:
    """The Cn where its turns leave more as it is than half way from chance, 1/n, to all; None where they do not.

    Points x of the map are p = Qᵀ (x - a) from the axis, a where it crosses the middle plane and Q its turn from z.
    """
    if found.share[found.order] < (1 + 1 / found.order) / 2:
        return None
    turn = rotation_vector_to_matrix(torch.tensor([*found.lean, 0.0], dtype=torch.float64)).numpy().T
    motion = RigidMotion(rotation=turn, shift=-turn @ np.array([*found.point, 0.0]))
    return FoundSymmetry(group=f"C{found.order}", motion=motion)


def symmetry_record(found: RotationalSymmetry) -> dict:
    """For the report."""
    return {
        "order": found.order,
        "share": {str(order): value for order, value in found.share.items()},
        "angle_deg": found.angle.tolist(),
        "correlation": found.correlation.tolist(),
        "point_A": found.point.tolist(),
        "lean_deg": found.lean.tolist(),
    }


def symmetry_shown(
    setup: Setup, maps: Mapping[int, torch.Tensor], resolution: float, params: RefineParams, imposed: str
) -> dict[str, dict]:
    """Record of the Cn that the half maps show; empty where a group was imposed, or starting directions were not
    given."""
    if imposed.strip().upper() != "C1" or not params.directions_given:  # z is no axis then
        return {}
    return {"rotational_symmetry": symmetry_record(symmetry_of_halves(setup, maps, resolution, params))}
