"""Halves that make their first maps alone must come to the same one, and show the group asked for, or it is said."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError, StageError
from tiltwise.ops.interpolate import centred_points, rotate_volume
from tiltwise.ops.particles.references import masked_reference, sphere_mask
from tiltwise.ops.symmetry import symmetrise_volume
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine import bootstrap as module

PARAMS = RefineParams(search_cone=15.0)


def agreeing_at(attempt, tried):
    """In place of the attempts: the halves agree at this one only."""

    def attempt_of(setup, weights, params, number, progress):
        tried.append(number)
        return {1: "first", 2: "second"}, {"correlation_of_halves": 0.98 if number == attempt else 0.78}

    return attempt_of


def test_halves_that_differ_start_again(monkeypatch):
    tried = []
    monkeypatch.setattr(module, "_attempt", agreeing_at(1, tried))
    references, record = module.bootstrap(None, {}, PARAMS)
    assert tried == [0, 1] and record["attempts"] == 2 and set(references) == {1, 2}


def test_halves_that_never_agree_are_an_error(monkeypatch):
    monkeypatch.setattr(module, "_attempt", agreeing_at(None, []))
    with pytest.raises(StageError, match="different first maps"):
        module.bootstrap(None, {}, PARAMS)


def setup_of(number):
    """As many particles in each half."""
    return SimpleNamespace(particles=SimpleNamespace(half_set=np.repeat([1, 2], number)))


def test_free_particles_must_be_enough_to_judge():
    with pytest.raises(InputError, match="7 particles of a half are too few"):
        module.bootstrap(setup_of(7), {}, RefineParams())


def test_a_helix_needs_directions_or_a_reference():
    with pytest.raises(InputError, match="axis of a helix"):
        module.bootstrap(setup_of(20), {}, RefineParams(symmetry="H(41,27.7,9)"))


def body(centres):
    points = centred_points((24,) * 3)
    return sum(torch.exp(-(points - torch.tensor(c)).square().sum(-1) / 7) for c in centres).float()


def in_setting(volume, symmetry):
    setup = SimpleNamespace(
        source=SimpleNamespace(settings=SimpleNamespace(pixel_size=10.0)), mask=sphere_mask(24, 10.0, 90.0)
    )
    params = RefineParams(symmetry=symmetry, particle_diameter=180.0, reference_lowpass=55.0)
    return module._in_setting(setup, {1: volume, 2: volume}, {}, params)


def test_free_maps_are_brought_to_the_setting_of_their_group():
    turn = torch.as_tensor(Rotation.from_rotvec([40, 25, -60], degrees=True).as_matrix())
    volume = rotate_volume(symmetrise_volume(body([(6.0, 1.0, 2.0), (4.0, 3.0, -5.0)]), "D2"), turn)
    placed, record = in_setting(volume, "D2")
    kept = symmetrise_volume(placed[1], "D2")
    assert record["symmetry_share"] > 0.95
    assert float((placed[1] * kept).sum() / (placed[1].norm() * kept.norm())) > 0.99
    masked = masked_reference(volume, sphere_mask(24, 10.0, 90.0))
    assert float(placed[1].norm() / masked.norm()) > 0.95  # averaged over what it has, not smeared


def test_a_group_that_the_map_does_not_show_is_an_error():
    with pytest.raises(StageError, match="does not show D3"):
        in_setting(body([(6.0, 0.0, 0.0), (-5.0, 3.0, 1.0), (0.0, -5.0, 4.0), (1.0, 4.0, -6.0)]), "D3")
