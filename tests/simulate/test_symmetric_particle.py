"""The procedural particle has its mass, its size and its point group, and its mates do not clash."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull, cKDTree

from tiltwise.data.errors import InputError
from tiltwise.ops.symmetry import symmetry_rotations
from tiltwise.params.presets import SCENES
from tiltwise.simulate.build_scene import target_atoms
from tiltwise.simulate.symmetric_particle import symmetric_particle

MASS = {"C": 12.011 + 1.3 * 1.008, "N": 14.007 + 1.1 * 1.008, "O": 15.999 + 0.1 * 1.008}  # with implicit hydrogens
CASES = [
    ("C1", 1.5e5, 89.0),
    ("C6", 3e5, 130.0),
    ("D3", 3e5, 115.0),
    ("T", 3e5, 120.0),
    ("O", 4.8e5, 130.0),
    ("I", 1e6, 180.0),
]


@pytest.mark.parametrize("symmetry, mass, diameter", CASES)
def test_mass_size_and_symmetry(symmetry, mass, diameter):
    atoms = symmetric_particle(mass, diameter, symmetry, 0)
    assert sum(MASS[e] for e in atoms.element) == pytest.approx(mass, rel=0.02)
    hull = atoms.position[ConvexHull(atoms.position).vertices]
    extent = np.linalg.norm(hull[:, None] - hull, axis=-1).max()
    assert 0.8 * diameter < extent <= diameter + 1e-6
    tree = cKDTree(atoms.position)
    for g in symmetry_rotations(symmetry).numpy():
        distance, partner = tree.query(atoms.position @ g.T)
        assert distance.max() < 1e-9
        assert np.array_equal(atoms.element, atoms.element[partner])


def test_mates_do_not_clash():
    atoms = symmetric_particle(3e5, 115.0, "D3", 1)
    unit = len(atoms) // 6
    nearest = min(cKDTree(atoms.position[unit:]).query(atoms.position[:unit])[0])
    assert nearest >= 2.0


def test_higher_symmetry_is_not_there_by_chance():
    """Turned by an operation that is not in its group, the particle is another."""
    atoms = symmetric_particle(3e5, 115.0, "D3", 0)
    for g in symmetry_rotations("D6").numpy():
        distance = cKDTree(atoms.position).query(atoms.position @ g.T)[0]
        assert (distance.max() < 1e-9) == any(np.allclose(g, h) for h in symmetry_rotations("D3").numpy())


def test_width_bounds_the_particle_across_z():
    atoms = symmetric_particle(1.3e5, 100.0, "C6", 0, width=66.0)
    assert np.linalg.norm(atoms.position[:, :2], axis=1).max() <= 33.0 + 1e-9


def test_seed_decides():
    first, again, other = (symmetric_particle(1.5e5, 89.0, "C2", seed) for seed in (1, 1, 2))
    assert np.array_equal(first.position, again.position) and np.array_equal(first.element, again.element)
    assert len(first) != len(other) or not np.allclose(first.position, other.position)


def test_too_small_a_diameter_is_said():
    with pytest.raises(InputError, match="1000 kDa does not fit into a diameter of 120 Å"):
        symmetric_particle(1e6, 120.0, "C1", 0)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_target_of_each_preset_can_be_built(name, seed):
    target = SCENES[name].target.model_copy(update={"seed": seed})
    assert sum(MASS[e] for e in target_atoms(target).element) == pytest.approx(target.mass, rel=0.02)
