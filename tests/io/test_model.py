"""Atomic models: the real files, assemblies, and what is left out."""

import gzip

import gemmi
import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.io.hydrogens import count_hydrogens
from tiltwise.io.model import DEFAULT_B_FACTOR, assembly_names, read_atoms, read_molecule

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


def test_a_molecule_is_the_first_assembly_or_what_the_file_lists(shared_data):
    models = shared_data / "models"
    assert len(read_molecule(models / "1bxn_rubisco.pdb")) == 2 * ATOMS["1bxn_rubisco.pdb"]
    assert len(read_molecule(models / "1bxn_rubisco.pdb", assembly="listed")) == ATOMS["1bxn_rubisco.pdb"]
    apoferritin = read_molecule(models / "4v1w_apoferritin.cif")
    assert len(apoferritin) == 24 * 1364
    radii = np.linalg.norm(apoferritin.position - apoferritin.position.mean(axis=0), axis=1).reshape(24, -1)
    assert np.abs(radii - radii[0]).mean() < 0.3  # 24 chains, each refined by itself, about one point
    assert len(read_molecule(models / "70s_ribosome_eftu_trna.pdb.gz")) == ATOMS["70s_ribosome_eftu_trna.pdb.gz"]


def test_gzipped_is_the_same(shared_data, tmp_path):
    path = shared_data / "models" / "4v1w_apoferritin.cif"
    packed = tmp_path / "x.cif.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    plain, unpacked = read_atoms(path), read_atoms(packed)
    for field in ("position", "element", "b_factor", "hydrogens"):
        assert np.array_equal(getattr(plain, field), getattr(unpacked, field))


def residue_of(name, atoms):
    residue = gemmi.Residue()
    residue.name = name
    for atom_name in atoms:
        atom = gemmi.Atom()
        atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
        residue.add_atom(atom)
    return residue


STANDARD = ["ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET", "PHE", "PRO"]
STANDARD += ["SER", "THR", "TRP", "TYR", "VAL"]
BACKBONE = ["N", "CA", "C", "O", "CB", "CG", "CG1", "CG2", "CD", "CD1", "CD2", "CE", "CE1", "CE2", "CE3", "CZ", "CZ2"]
SIDE = ["CZ3", "CH2", "NE", "NE1", "NE2", "NH1", "NH2", "ND1", "ND2", "NZ", "OG", "OG1", "OH", "SG"]
NUCLEOTIDE = ["C1'", "C2'", "O2'", "C3'", "C4'", "C5*", "N1", "C2", "N2", "N3", "N4", "C5", "C6", "N6", "C7", "C8"]


@pytest.mark.parametrize("name", STANDARD)
def test_amino_acids_carry_what_is_tabulated_less_water(name):
    """gemmi lists the free molecule, with ASP and GLU protonated and HIS twice so."""
    expected = gemmi.find_tabulated_residue(name).hydrogen_count - 2 - (name in ("ASP", "GLU", "HIS"))
    assert sum(count_hydrogens(residue_of(name, BACKBONE + SIDE))) == expected


@pytest.mark.parametrize("name", ["A", "G", "C", "U", "DA", "DG", "DC", "DT"])
def test_nucleotides_carry_what_is_tabulated_less_water_and_the_phosphates_two(name):
    expected = gemmi.find_tabulated_residue(name).hydrogen_count - 2 - 1
    assert sum(count_hydrogens(residue_of(name, NUCLEOTIDE))) == expected


def test_listed_hydrogens_are_not_counted_twice_and_others_share_the_total():
    assert count_hydrogens(residue_of("ALA", ["N", "CA", "C", "O", "CB", "H"])) == [0] * 6
    methionine = count_hydrogens(residue_of("MSE", ["N", "CA", "C", "O", "CB", "CG", "CE"]))
    assert sum(methionine) == pytest.approx(9)
    assert count_hydrogens(residue_of("?!", ["C", "N", "O", "S"])) == [1.3, 1.1, 0.1, 0]


def test_nucleic_acids_have_fewer_hydrogens_than_protein(shared_data):
    ribosome = read_atoms(shared_data / "models" / "70s_ribosome_eftu_trna.pdb.gz")
    protein = read_atoms(shared_data / "models" / "3j9i_proteasome_20s.pdb")
    assert ribosome.hydrogens.mean() < 0.72 and 0.95 < protein.hydrogens.mean() < 1.05


def b_factors(tmp_path, values):
    line = "ATOM  {:5d}  CA  GLY A{:4d}      {:6.3f}  12.500  -3.250  1.00{:6.2f}           C\n"
    (tmp_path / "b.pdb").write_text("".join(line.format(i, i, 3.8 * i, b) for i, b in enumerate(values, 1)))
    return read_atoms(tmp_path / "b.pdb").b_factor


def test_b_factors_that_say_nothing_are_replaced(tmp_path):
    measured = np.arange(20.0, 45.0)
    assert np.array_equal(b_factors(tmp_path, measured), measured)
    assert b_factors(tmp_path, [*measured, 400.0]).max() == 200
    for nonsense in (np.zeros(20), np.full(20, 100.0), measured + 150, measured - 30):
        assert (b_factors(tmp_path, nonsense) == DEFAULT_B_FACTOR).all()


def test_chains_by_name(shared_data):
    path = shared_data / "models/ca_sp1_from_empiar10164.cif"
    six = read_atoms(path, chains=("Af", "Ag", "Ah", "Ai", "Ak", "Al"))
    assert len(six) == 1653 + 1643 + 1632 + 1625 + 1633 + 1618
    with pytest.raises(InputError, match="has no chain Zz; it has Aa"):
        read_atoms(path, chains=("Af", "Zz"))
