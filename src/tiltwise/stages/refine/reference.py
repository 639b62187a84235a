"""What the average says of the reference that it began with: its hand, its scale, its size."""

import math
from collections.abc import Mapping

import torch

from tiltwise.data.volume import Volume
from tiltwise.ops.maps.reference_check import check_reference
from tiltwise.ops.particles.references import resampled_reference, size_notes
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine.setup import Setup

_FINEST = 2.0  # in resolutions of the average
_PER_DIAMETER = 5.0  # spacings to a diameter at most: finer ones tell no more of the hand, and cost


def reference_shown(
    setup: Setup, maps: Mapping[int, torch.Tensor], reference: Volume | None, resolution: float, params: RefineParams
) -> dict:
    """reference_check, its figures, and notes on what is wrong; nothing where none was given. resolution in Å.

    Halves that agree nowhere (resolution infinite) show nothing of it but its size.
    """
    if reference is None:
        return {}
    if math.isinf(resolution):
        return {"notes": list(size_notes(reference, params.particle_diameter))}
    settings = setup.source.settings
    finest = max(_FINEST * resolution, setup.diameter / _PER_DIAMETER)
    given = resampled_reference(reference, settings.box_size, settings.pixel_size, finest)
    average = (maps[1] + maps[2]).cpu()
    found = check_reference(given, average, setup.mask.cpu(), voxel_size=settings.pixel_size, resolution=finest)
    figures = {"as_given": found.as_given, "mirrored": found.mirrored, "scale": found.scale, "scaled": found.scaled}
    sized = size_notes(reference, params.particle_diameter)  # says of the scale what the check would say once more
    return {"reference_check": figures, "notes": [*sized, *(found.notes if found.looks_mirrored or not sized else ())]}
