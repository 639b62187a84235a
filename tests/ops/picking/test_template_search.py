"""Template search: the compiled scores are the plain ones, and a climb ends on the voxel where its template lies."""

import pytest
import torch

from tiltwise.ops.picking import template_search
from tiltwise.ops.picking.matching import _padded_spectrum
from tiltwise.ops.rotations import rotation_grid

SIDE, PLACE = 12, torch.tensor([[9, 20, 14]])


def level(filtered: torch.Tensor) -> template_search.Level:
    """A level of white noise power and full transfer: its scores are plain products."""
    return template_search.Level(
        filtered=filtered,
        weight=torch.ones(SIDE, SIDE, SIDE // 2 + 1),
        spread=torch.ones_like(filtered),
        voxel_size=10.0,
        side=SIDE,
        diameter=80.0,
        step=30.0,
    )


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(24, 30, 28, generator=torch.Generator().manual_seed(1))


def test_compiled_scores_are_those_of_the_plain_twin(noise):
    """Both sum some 400 products of numbers of order 1 in float32: they differ by rounding, 400 eps at most; and the
    search is periodic, so voxels at the faces count too."""
    values = template_search._Values(level(noise))
    points = int(values.inside.sum())
    templates = torch.randn(3, points, generator=torch.Generator().manual_seed(2))
    index, which = torch.tensor([[0, 0, 0], [23, 29, 27], [9, 20, 14], [12, 3, 0]]), torch.tensor([2, 0, 1, 2])
    compiled, plain = values.around(index, templates, which), values._around_plain(index, templates, which)
    assert compiled.shape == (4, 27)
    assert torch.allclose(compiled, plain, atol=points * 1.2e-7 * float(templates.abs().max() * noise.abs().max()))


def test_a_climb_ends_where_the_template_lies(noise):
    """From two voxels off, with the right turn. A template of norm 1 in no noise scores its own amplitude there: 7."""
    reference = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(3))
    reference = template_search.low_pass(reference, 40.0, 10.0), 1.0
    rotation = rotation_grid(90.0)[5:6]
    empty = level(torch.zeros_like(noise))
    inside = template_search._Values(empty).inside
    flat = template_search._flat_templates(empty, reference, rotation, inside)[0]
    box = torch.zeros(SIDE, SIDE, SIDE)
    box[inside] = 7 * flat
    corner = (PLACE[0] - SIDE // 2).tolist()
    filtered = torch.zeros_like(noise)
    filtered[tuple(slice(c, c + SIDE) for c in corner)] = box
    index, scores = template_search._climb(
        level(filtered), PLACE + torch.tensor([[1, -1, 2]]), rotation.expand(1, 3, 3), reference
    )
    assert (index == PLACE).all()
    assert float(scores[0, 1, 1, 1]) == pytest.approx(7.0, rel=1e-4)
    assert float(scores[0].max()) == float(scores[0, 1, 1, 1])


def test_a_turned_reference_resembles_itself_at_some_turn(noise):
    """Low-passed noise turned by 90° about z: alike at the nearest turn of the grid, half a step of 60° off at most,
    which leaves 0.6 and more; other noise is so at none."""
    generator = torch.Generator().manual_seed(5)
    first, other = (template_search.low_pass(torch.randn(8, 8, 8, generator=generator), 60.0, 10.0) for _ in range(2))
    turned = torch.rot90(first[1:, 1:, 1:], 1, (1, 2))
    first = torch.nn.functional.pad(first[1:, 1:, 1:], (1, 0, 1, 0, 1, 0))
    turned = torch.nn.functional.pad(turned, (1, 0, 1, 0, 1, 0))
    empty = level(torch.zeros_like(noise))
    assert template_search.resemblance(empty, first, first, 10.0, "C1") == pytest.approx(1, abs=1e-4)
    found = template_search.resemblance(empty, first, turned, 10.0, "C1")
    assert found > 0.6 > template_search.resemblance(empty, first, other, 10.0, "C1")


def test_transform_of_a_padded_box_is_that_of_the_whole():
    """Axis by axis with zeros behind is the same transform, to rounding: 5 log2 N eps of its largest value."""
    box, shape = torch.randn(6, 6, 6, generator=torch.Generator().manual_seed(4)), (15, 16, 18)
    whole = torch.zeros(shape)
    whole[:6, :6, :6] = box
    expected = torch.fft.rfftn(whole)
    assert torch.allclose(_padded_spectrum(box, shape), expected, atol=60 * 1.2e-7 * float(expected.abs().max()))
