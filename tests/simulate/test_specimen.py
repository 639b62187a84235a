"""The procedural molecule is protein-like: mass, density, asymmetry, no clashes, and the same for the same seed."""

import numpy as np
from scipy.spatial import ConvexHull, cKDTree

from tiltwise.params.simulate import SpecimenParams
from tiltwise.simulate.specimen import procedural_molecule

_MASS = {"C": 12.011 + 1.3 * 1.008, "N": 14.007 + 1.1 * 1.008, "O": 15.999 + 0.1 * 1.008}  # with implicit hydrogens


def test_default_molecule_has_mass_size_and_asymmetry():
    atoms = procedural_molecule(SpecimenParams(), 0)
    mass = sum(_MASS[e] for e in atoms.element)
    assert abs(mass - 2.5e6) < 0.04 * 2.5e6
    hull = atoms.position[ConvexHull(atoms.position).vertices]
    diameter = np.linalg.norm(hull[:, None] - hull, axis=-1).max()
    assert 220 <= diameter <= 270
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(atoms.position.T)))
    assert spread[1] / spread[0] > 1.1 and spread[2] / spread[1] > 1.1  # no axis of symmetry
    assert np.allclose(atoms.position.mean(axis=0), 0, atol=1e-6)


def test_few_atoms_are_nearer_than_a_bond():
    """Bonds of the ideal helix are 1.3 to 1.5 Å; side chains are pseudo-atoms, and a few touch."""
    atoms = procedural_molecule(SpecimenParams(molecular_weight=2e5, diameter=100.0), 3)
    nearest = cKDTree(atoms.position).query(atoms.position, k=2)[0][:, 1]
    assert np.mean(nearest < 0.5) < 0.02
    assert 1.1 < np.median(nearest) < 1.5


def test_seed_decides():
    small = SpecimenParams(molecular_weight=2e5, diameter=100.0)
    first, again, other = (procedural_molecule(small, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.position, again.position) and np.array_equal(first.element, again.element)
    assert first.position.shape != other.position.shape or not np.allclose(first.position, other.position)
