"""How many hydrogens each heavy atom of a residue carries at pH 7, inside a chain; model files seldom list them."""

import gemmi

_BACKBONE = {"N": 1, "CA": 1}
_SIDE_CHAINS = {
    "ALA": {"CB": 3},
    "ARG": {"CB": 2, "CG": 2, "CD": 2, "NE": 1, "NH1": 2, "NH2": 2},
    "ASN": {"CB": 2, "ND2": 2},
    "ASP": {"CB": 2},
    "CYS": {"CB": 2, "SG": 1},
    "GLN": {"CB": 2, "CG": 2, "NE2": 2},
    "GLU": {"CB": 2, "CG": 2},
    "GLY": {"CA": 2},
    "HIS": {"CB": 2, "ND1": 0.5, "NE2": 0.5, "CD2": 1, "CE1": 1},
    "ILE": {"CB": 1, "CG1": 2, "CG2": 3, "CD1": 3},
    "LEU": {"CB": 2, "CG": 1, "CD1": 3, "CD2": 3},
    "LYS": {"CB": 2, "CG": 2, "CD": 2, "CE": 2, "NZ": 3},
    "MET": {"CB": 2, "CG": 2, "CE": 3},
    "PHE": {"CB": 2, "CD1": 1, "CD2": 1, "CE1": 1, "CE2": 1, "CZ": 1},
    "PRO": {"N": 0, "CB": 2, "CG": 2, "CD": 2},
    "SER": {"CB": 2, "OG": 1},
    "THR": {"CB": 1, "OG1": 1, "CG2": 3},
    "TRP": {"CB": 2, "CD1": 1, "NE1": 1, "CE3": 1, "CZ2": 1, "CZ3": 1, "CH2": 1},
    "TYR": {"CB": 2, "CD1": 1, "CD2": 1, "CE1": 1, "CE2": 1, "OH": 1},
    "VAL": {"CB": 1, "CG1": 3, "CG2": 3},
}
_RIBOSE = {"C1'": 1, "C2'": 1, "O2'": 1, "C3'": 1, "C4'": 1, "C5'": 2}
_DEOXYRIBOSE = {"C1'": 1, "C2'": 2, "C3'": 1, "C4'": 1, "C5'": 2}
_BASES = {
    "A": {"C2": 1, "N6": 2, "C8": 1},
    "G": {"N1": 1, "N2": 2, "C8": 1},
    "C": {"N4": 2, "C5": 1, "C6": 1},
    "U": {"N3": 1, "C5": 1, "C6": 1},
    "T": {"N3": 1, "C6": 1, "C7": 3, "C5M": 3},
}
_TABLE = (
    {name: {**_BACKBONE, **side} for name, side in _SIDE_CHAINS.items()}
    | {name: {**_RIBOSE, **base} for name, base in _BASES.items()}
    | {f"D{name}": {**_DEOXYRIBOSE, **base} for name, base in _BASES.items()}
)
_SHARE = {"C": 1.3, "N": 1.1, "O": 0.1}
"""Mean number on an atom of a protein: for residues in no table, and how a known total is shared out."""


def count_hydrogens(residue: gemmi.Residue) -> list[float]:
    """Hydrogens on each atom of a residue, in its order; none where the file lists hydrogens of this residue.

    Standard amino acids and nucleotides go by atom name. In others a total that gemmi tabulates, less the water lost
    in the chain, is shared among the atoms by element; without one each element has the mean of proteins.
    """
    if any(atom.is_hydrogen() for atom in residue):
        return [0.0] * len(residue)
    table = _TABLE.get(residue.name)
    if table is not None:
        return [float(table.get(atom.name.replace("*", "'"), 0)) for atom in residue]
    shares = [_SHARE.get(atom.element.name, 0.0) for atom in residue]
    information = gemmi.find_tabulated_residue(residue.name)
    total = information.hydrogen_count - (2 if information.is_amino_acid() or information.is_nucleic_acid() else 0)
    if not information.found() or total <= 0 or not sum(shares):
        return shares
    return [share * total / sum(shares) for share in shares]
