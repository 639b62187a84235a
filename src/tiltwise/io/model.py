"""Atomic models: PDB and mmCIF files, gzipped or not."""

from collections.abc import Sequence
from pathlib import Path

import gemmi
import numpy as np

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.io.hydrogens import count_hydrogens

DEFAULT_B_FACTOR = 30.0
"""Å², where those of the file say nothing."""
_SANE_B_FACTORS = (5.0, 120.0)  # Å², of their median; above, they hold the blur of a map, not motion
_GREATEST_B_FACTOR = 200.0
_SAME = 0.9  # part of the atoms that have one value where it is a placeholder


def read_atoms(path: str | Path, *, assembly: str | None = None, chains: Sequence[str] | None = None) -> Atoms:
    """The atoms of the first model of a PDB or mmCIF file (.gz too), positions in the file's frame, Å.

    `assembly` names a biological assembly of the file, "1" as a rule, and gives all its copies; None gives what the
    file lists; `chains` names those that are wanted. Waters are left out, and of a residue's alternative conformations
    all but the first. Hydrogens that the file lists are atoms like others; where a residue lists none, its atoms carry
    those they have at pH 7 (io/hydrogens.py). B-factors are those of the file, at most 200 Å², unless they are
    evidently not measured (one value for nine atoms in ten, a median outside 5 to 120 Å², a negative one): then all are
    DEFAULT_B_FACTOR.

    Raises InputError for a file that cannot be read or holds no atoms, an atom of unknown element, and an assembly or a
    chain that is not in the file.
    """
    path = Path(path)
    structure = _structure(path)
    if assembly is not None:
        structure = _assembled(path, structure, assembly)
    listed_chains = list(structure[0]) if len(structure) else []
    missing = sorted(set(chains or ()) - {chain.name for chain in listed_chains})
    if missing:
        raise InputError(f"{path}: has no chain {missing[0]}; it has {', '.join(c.name for c in listed_chains)}")
    residues = [residue for chain in listed_chains if chains is None or chain.name in chains for residue in chain]
    listed = [pair for residue in residues if not residue.is_water() for pair in _first_conformation(residue)]
    atoms = [atom for atom, _ in listed]
    if not atoms:
        raise InputError(f"{path}: holds no atoms; a PDB or mmCIF file is expected")
    unknown = next((atom for atom in atoms if atom.element.atomic_number == 0), None)
    if unknown is not None:
        raise InputError(f"{path}: atom {unknown.name} (number {unknown.serial}) has no known element")
    position = np.array([atom.pos.tolist() for atom in atoms])
    if not np.isfinite(position).all():
        raise InputError(f"{path}: an atom has a coordinate that is not finite")
    return Atoms(
        position=position,
        element=np.array([atom.element.name for atom in atoms]),
        b_factor=_sane_b_factors(np.array([atom.b_iso for atom in atoms])),
        hydrogens=np.array([hydrogens for _, hydrogens in listed]),
    )


def read_molecule(path: str | Path, *, assembly: str | None = None) -> Atoms:
    """The atoms of a biological assembly: the one named, or the first that the file describes.

    A file that describes none, and the name "listed", give what the file lists. Otherwise like `read_atoms`.
    """
    if assembly is None:
        assembly = next(iter(assembly_names(path)), "listed")
    return read_atoms(path, assembly=None if assembly == "listed" else assembly)


def assembly_names(path: str | Path) -> tuple[str, ...]:
    """Names of the biological assemblies that a model file describes."""
    return tuple(assembly.name for assembly in _structure(Path(path)).assemblies)


def _structure(path: Path) -> gemmi.Structure:
    if not path.is_file():
        raise InputError(f"{path}: cannot be read (no such file)")
    try:
        return gemmi.read_structure(str(path))
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: this is not a sound PDB or mmCIF file ({' '.join(str(error).split())})") from None


def _first_conformation(residue: gemmi.Residue) -> list[tuple[gemmi.Atom, float]]:
    """Atoms without a conformation letter, and those with the first letter of the residue; and their hydrogens."""
    letters = [atom.altloc for atom in residue if atom.has_altloc()]
    pairs = zip(residue, count_hydrogens(residue), strict=True)
    return [(atom, hydrogens) for atom, hydrogens in pairs if not atom.has_altloc() or atom.altloc == letters[0]]


def _sane_b_factors(b_factor: np.ndarray) -> np.ndarray:
    low, high = _SANE_B_FACTORS
    sane = np.isfinite(b_factor).all() and b_factor.min() >= 0 and low <= np.median(b_factor) <= high
    if sane and len(b_factor) > 10:
        sane = np.unique(b_factor, return_counts=True)[1].max() < _SAME * len(b_factor)
    return np.minimum(b_factor, _GREATEST_B_FACTOR) if sane else np.full(len(b_factor), DEFAULT_B_FACTOR)


def _assembled(path: Path, structure: gemmi.Structure, name: str) -> gemmi.Structure:
    names = [assembly.name for assembly in structure.assemblies]
    if name not in names:
        raise InputError(f"{path}: has no assembly {name} (it has {', '.join(names) or 'none'})")
    try:
        structure.transform_to_assembly(name, gemmi.HowToNameCopiedChain.AddNumber)
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:  # it names chains that are not there, say
        raise InputError(f"{path}: assembly {name} cannot be made ({' '.join(str(error).split())})") from None
    return structure
