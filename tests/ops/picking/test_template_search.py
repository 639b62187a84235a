"""Template search: the compiled scores are the plain ones, a climb ends on the voxel where its template lies, and what
is done some at a time is what is done at once."""

import pytest
import torch

from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.picking import places, template_search
from tiltwise.ops.picking.matching import TiltTransfer
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
    offsets = torch.nonzero(template_search._inside(level(noise))) - SIDE // 2
    points = len(offsets)
    templates = torch.randn(3, points, generator=torch.Generator().manual_seed(2))
    index, which = torch.tensor([[0, 0, 0], [23, 29, 27], [9, 20, 14], [12, 3, 0]]), torch.tensor([2, 0, 1, 2])
    compiled, plain = (
        of(noise, index, offsets, templates, which) for of in (places.score_around, places.score_around_plain)
    )
    assert compiled.shape == (4, 27)
    assert torch.allclose(compiled, plain, atol=points * 1.2e-7 * float(templates.abs().max() * noise.abs().max()))
    gathered = places.gather_around(noise, index, offsets)
    assert torch.equal(gathered, places.gather_around_plain(noise, index, offsets))
    one = offsets[5] + index[1]
    assert gathered[1, 5] == noise[tuple(one % torch.tensor(noise.shape))]


def test_a_climb_ends_where_the_template_lies(noise):
    """From two voxels off, with the right turn. A template of norm 1 in no noise scores its own amplitude there: 7."""
    reference = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(3))
    reference = template_search.low_pass(reference, 40.0, 10.0), 1.0
    rotation = rotation_grid(90.0)[5:6]
    empty = level(torch.zeros_like(noise))
    inside = template_search._inside(empty)
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


def test_places_a_few_at_a_time_are_all_at_once(noise, monkeypatch):
    """40 places, some at the faces, and 248 turns: alike in rotation and, to rounding of some 400 products, in score,
    with work for all at once, and for eleven templates and two places."""
    reference = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(3))
    reference = template_search.low_pass(reference, 40.0, 10.0), 1.0
    turns = rotation_grid(40.0)
    index = torch.stack([torch.arange(40) % n for n in noise.shape], dim=1)
    at_once = template_search._best_rotation(level(noise), index, reference, turns)
    climbed = template_search._climb(level(noise), index, at_once[0], reference)
    points = int(template_search._inside(level(noise)).sum())
    assert template_search.at_once(points)[0] >= len(turns) and template_search.at_once(points)[1] >= 40
    monkeypatch.setattr(template_search, "WORK_BYTES", 16 * (11 * points))
    assert template_search.at_once(points) == (11, 2)
    few = template_search._best_rotation(level(noise), index, reference, turns)
    assert torch.equal(at_once[0], few[0])
    assert torch.allclose(at_once[1], few[1], atol=points * 1.2e-7 * float(noise.abs().max()))
    again = template_search._climb(level(noise), index, at_once[0], reference)
    assert torch.equal(climbed[0], again[0])
    assert torch.allclose(climbed[1], again[1], atol=points * 1.2e-7 * float(noise.abs().max()))


@pytest.mark.parametrize(("shape", "wanted"), [((31, 40, 51), 16.0), ((30, 41, 50), 23.0), ((17, 19, 16), 11.3)])
def test_shrinking_by_planes_is_shrinking_at_once(shape, wanted, monkeypatch):
    """The cropped transform is separable: planes first and then across them, a few at a time, differ by rounding."""
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    monkeypatch.setattr("tiltwise.ops.moments._SLAB_VOXELS", 5000)
    small, voxel = template_search.shrink_volume(volume, 10.0, wanted)
    ratio = template_search._shrinking(10.0, wanted)
    padded = [-(-n // ratio.numerator) * ratio.numerator for n in shape]
    whole = torch.zeros(padded)
    first = [m // 2 - n // 2 for n, m in zip(shape, padded, strict=True)]
    whole[tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))] = volume
    expected = fourier_rescale(whole, tuple(m * ratio.denominator // ratio.numerator for m in padded))
    assert voxel == 10.0 * ratio and ratio > 1
    assert torch.allclose(small, expected, atol=30 * 1.2e-7 * float(volume.abs().max()))
    assert template_search.shrink_volume(volume, 10.0, 11.0)[0] is volume


@pytest.mark.parametrize(("shape", "diameter", "step"), [((31, 40, 51), 90.0, 20.0), ((30, 41, 50), 60.0, 10.0)])
def test_the_sampling_said_is_that_of_the_level(shape, diameter, step):
    transfer = TiltTransfer(
        rotations=torch.eye(3)[None], widths=torch.ones(1), amplitude=torch.ones(1, 100), frequency_step=1e-3
    )
    made = template_search.prepare_level(torch.randn(shape), 10.0, transfer, diameter, step)
    assert template_search.level_sampling(shape, 10.0, diameter, step) == (
        tuple(made.filtered.shape),
        made.voxel_size,
        made.side,
    )
