"""The symmetry that a map shows by itself: in the record where none was imposed, and in the report in plain words."""

from types import SimpleNamespace

import pytest
import torch

from tiltwise.ops.interpolate import centred_points
from tiltwise.params.refine import RefineParams
from tiltwise.report.map_part import _symmetry
from tiltwise.stages.refine.symmetry import symmetry_shown

VOXEL = 5.0
SETUP = SimpleNamespace(source=SimpleNamespace(settings=SimpleNamespace(pixel_size=VOXEL)))
PARAMS = RefineParams(search_cone=15.0, particle_diameter=120.0)


@pytest.fixture(scope="module")
def maps() -> dict[int, torch.Tensor]:
    """Six balls about z and one on it, and independent noise in each half."""
    points, generator = centred_points((32,) * 3) * VOXEL, torch.Generator().manual_seed(1)
    turns = torch.arange(6) * torch.pi / 3
    centres = [(35 * float(torch.cos(t)), 35 * float(torch.sin(t)), 0.0) for t in turns] + [(0.0, 0.0, 10.0)]
    density = sum(torch.exp(-(((points - torch.tensor(c)).norm(dim=-1) / 10) ** 2)) for c in centres)
    return {half: density + 0.1 * torch.randn(density.shape, generator=generator) for half in (1, 2)}


def test_six_balls_are_found_where_nothing_was_imposed(maps):
    shown = symmetry_shown(SETUP, maps, 15.0, PARAMS)["rotational_symmetry"]
    assert shown["order"] == 6
    assert shown["correlation"][60] > 2 * shown["correlation"][30]  # balls between the balls
    (sentence,) = _symmetry(shown)
    assert "C6 leaves" in str(sentence) and "by chance it would be 0.17" in str(sentence)


@pytest.mark.parametrize("change", [{"symmetry": "C6"}, {"search_cone": 180.0}])
def test_nothing_is_said_of_what_was_imposed_or_has_no_axis(maps, change):
    assert symmetry_shown(SETUP, maps, 15.0, PARAMS.model_copy(update=change)) == {}
    assert _symmetry(None) == []
