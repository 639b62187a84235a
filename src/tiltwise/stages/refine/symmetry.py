"""What symmetry a map shows that none was imposed on."""

from collections.abc import Mapping

import torch

from tiltwise.ops.maps.rotational_symmetry import find_rotational_symmetry
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine.setup import Setup

_WIDEST_CONE = 60.0  # degrees; where directions are wholly unknown, z is no axis of anything
_DETAIL = 10.0  # spacings down to a tenth of the diameter are compared, or the resolution if coarser
_REACH = 6.0  # the axis lies within a sixth of the diameter of z


def symmetry_shown(
    setup: Setup, maps: Mapping[int, torch.Tensor], resolution: float, params: RefineParams
) -> dict[str, dict]:
    """Record of the Cn that the half maps show about an axis near z (ops/maps/rotational_symmetry.py); empty where a
    group was imposed, or starting directions were not given."""
    if params.symmetry.strip().upper() != "C1" or params.search_cone > _WIDEST_CONE:
        return {}
    diameter = params.particle_diameter
    found = find_rotational_symmetry(
        maps[1].cpu(),
        maps[2].cpu(),
        setup.source.settings.pixel_size,
        radius=diameter / 2,
        height=diameter,
        resolution=max(resolution, diameter / _DETAIL, 2.2 * setup.source.settings.pixel_size),
        reach=diameter / _REACH,
    )
    record = {
        "order": found.order,
        "share": {str(order): value for order, value in found.share.items()},
        "angle_deg": found.angle.tolist(),
        "correlation": found.correlation.tolist(),
        "point_A": found.point.tolist(),
        "lean_deg": found.lean.tolist(),
    }
    return {"rotational_symmetry": record}
