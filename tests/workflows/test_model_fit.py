"""A model measured against a map: found wherever it lies, the hand told, and no better than the noise allows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.volume import Volume
from tiltwise.ops.masks import soft_mask_from_map, soft_sphere
from tiltwise.params.simulate import SpecimenParams
from tiltwise.simulate.potential import potential_map, scatterer_from_atoms
from tiltwise.simulate.specimen import procedural_molecule
from tiltwise.workflows.model_fit import measure_model

SIDE, VOXEL = 36, 6.0


@pytest.fixture(scope="module")
def atoms():
    return procedural_molecule(SpecimenParams(molecular_weight=3e5, diameter=120.0), 3)


def halves_of(atoms, noise, seed=0):
    """Half maps of a model as its file places it (voxel 0 is the origin), and a mask about it."""
    scatterer = scatterer_from_atoms(atoms)
    signal = torch.as_tensor(potential_map(scatterer, VOXEL, SIDE).data)
    mask = soft_mask_from_map(signal, 0.15 * float(signal.max()), 1.0, 4.0)
    generator = torch.Generator().manual_seed(seed)
    sd = noise * float(signal.std())
    maps = [signal + sd * torch.randn(signal.shape, generator=generator) for _ in range(2)]
    first, second = (Volume(data=m.numpy(), voxel_size=VOXEL) for m in maps)
    return HalfMaps(half1=first, half2=second), mask


def in_box(atoms):
    """The model with its centre of potential in the middle of the box."""
    scatterer = scatterer_from_atoms(atoms)
    offset = scatterer.position[0] - atoms.position[0] + SIDE // 2 * VOXEL
    return replace(atoms, position=atoms.position + offset)


def test_a_model_where_it_belongs_reaches_what_the_halves_promise(atoms):
    halves, mask = halves_of(atoms, 1.0)
    found = measure_model(halves, mask, in_box(atoms))
    assert not found.searched
    assert found.shift < 0.5 and found.rotation_angle < 0.5
    # map and model: C = sqrt(2 FSC / (1 + FSC)) of the same mask, to the error of the shells about the crossing
    assert found.resolution == pytest.approx(found.resolution_expected, rel=0.05)
    assert found.resolution_mirrored > 1.3 * found.resolution
    assert found.overlap > 0.9


def test_a_model_elsewhere_and_turned_is_found(atoms):
    halves, mask = halves_of(atoms, 1.0)
    turned = Rotation.from_rotvec([1.0, -0.7, 0.4]).apply(atoms.position) + [500.0, -300.0, 90.0]
    found = measure_model(halves, mask, replace(atoms, position=turned))
    assert found.searched
    assert found.rotation_angle == pytest.approx(np.degrees(np.linalg.norm([1.0, -0.7, 0.4])), abs=1.0)
    assert found.resolution == pytest.approx(found.resolution_expected, rel=0.06)


def test_a_model_of_a_part_is_not_drawn_away_by_the_rest(atoms):
    """Beside the molecule the map shows a membrane as strong as the molecule at its strongest."""
    halves, _ = halves_of(atoms, 1.0)
    signal = potential_map(scatterer_from_atoms(atoms), VOXEL, SIDE).data
    slab = np.zeros((SIDE, 1, 1), np.float32)
    slab[3:8] = signal.max()  # from 66 to 90 Å below the middle, its radius 60 Å
    first, second = (Volume(data=one.data + slab, voxel_size=VOXEL) for one in (halves.half1, halves.half2))
    shown = HalfMaps(half1=first, half2=second)
    mask = soft_sphere((SIDE,) * 3, 100.0 / VOXEL, 4.0)
    turned = Rotation.from_rotvec([1.0, -0.7, 0.4]).apply(atoms.position) + [500.0, -300.0, 90.0]
    found = measure_model(shown, mask, replace(atoms, position=turned))
    assert found.overlap > 0.9
    assert found.rotation_angle == pytest.approx(np.degrees(np.linalg.norm([1.0, -0.7, 0.4])), abs=1.5)
    assert found.resolution > 40 > 1.5 * found.resolution_own_mask
    assert any("own mask" in note for note in found.notes)


def test_a_map_of_the_wrong_hand_is_told(atoms):
    halves, mask = halves_of(replace(atoms, position=atoms.position * [-1, 1, 1]), 1.0)
    found = measure_model(halves, mask, in_box(atoms))
    assert any("wrong hand" in note for note in found.notes)


def test_a_model_larger_than_the_box_is_refused(atoms):
    halves, mask = halves_of(atoms, 1.0)
    with pytest.raises(InputError, match="larger box"):
        measure_model(halves, mask, replace(atoms, position=3 * atoms.position))
