"""Atomic models: the real files, assemblies, and what is left out."""

import gzip

import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.io.model import assembly_names, read_atoms

ATOMS = {
    "1bxn_rubisco.pdb": 18144,
    "3j9i_proteasome_20s.pdb": 46228,
    "4v1w_apoferritin.cif": 32736,
    "70s_ribosome_eftu_trna.pdb.gz": 148599,
    "ca_sp1_from_empiar10164.cif": 12359,
}


@pytest.mark.parametrize("name", ATOMS)
def test_real_models(shared_data, name):
    atoms = read_atoms(shared_data / "models" / name)
    assert len(atoms) == ATOMS[name] and atoms.position.shape == (ATOMS[name], 3)
    assert set(atoms.element) <= {"C", "N", "O", "P", "S"} and np.isfinite(atoms.b_factor).all()
    assert np.ptp(atoms.position, axis=0).max() < 500


def test_the_assembly_of_rubisco_is_twice_what_the_file_lists(shared_data):
    path = shared_data / "models/1bxn_rubisco.pdb"
    half, whole = read_atoms(path), read_atoms(path, assembly="1")
    assert assembly_names(path) == ("1",) and len(whole) == 2 * len(half)
    middle = whole.position.mean(axis=0)
    radii = np.sort(np.linalg.norm(whole.position - middle, axis=1))
    assert np.allclose(radii[::2], radii[1::2], atol=0.01)  # a twofold: atoms pair up at equal radii
    with pytest.raises(InputError, match=r"has no assembly 7 \(it has 1\)"):
        read_atoms(path, assembly="7")


PDB = """\
ATOM      1  N   GLY A   1      11.000  12.500  -3.250  1.00 10.00           N
ATOM      2  CA AGLY A   1      12.000  12.500  -3.250  0.60 20.00           C
ATOM      3  CA BGLY A   1      13.000  12.500  -3.250  0.40 30.00           C
HETATM    4  O   HOH A   2      14.000  12.500  -3.250  1.00 10.00           O
END
"""


def test_waters_and_other_conformations_are_left_out(tmp_path):
    (tmp_path / "x.pdb").write_text(PDB)
    (tmp_path / "x.pdb.gz").write_bytes(gzip.compress(PDB.encode()))
    for name in ("x.pdb", "x.pdb.gz"):
        atoms = read_atoms(tmp_path / name)
        assert atoms.element.tolist() == ["N", "C"] and atoms.b_factor.tolist() == [10, 20]
        assert atoms.position.tolist() == [[11, 12.5, -3.25], [12, 12.5, -3.25]]


@pytest.mark.parametrize(
    "name, content, fault",
    [
        ("x.pdb", "hello\n", "holds no atoms"),
        ("x.cif", "hello\n", "not a sound PDB or mmCIF file"),
        ("x.cif", "data_x\nloop_\n_atom_site.id\n", "x.cif"),
        ("x.pdb.gz", "no gzip", "x.pdb.gz"),
        ("x.pdb", PDB.replace("           N", "           Q").replace("N   GLY", "Q   GLY"), "no known element"),
        ("x.docx", "hello", "x.docx"),
    ],
)
def test_faulty_files_give_one_line(tmp_path, name, content, fault):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=fault) as caught:
        read_atoms(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_an_absent_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_atoms(tmp_path / "none.pdb")
