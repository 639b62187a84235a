"""Atomic models: PDB and mmCIF files, gzipped or not."""

from pathlib import Path

import gemmi
import numpy as np

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError


def read_atoms(path: str | Path, *, assembly: str | None = None) -> Atoms:
    """The atoms of the first model of a PDB or mmCIF file (.gz too), positions in the file's frame, Å.

    `assembly` names a biological assembly of the file, "1" as a rule, and gives all its copies; None gives what the
    file lists. Waters are left out, and of a residue's alternative conformations all but the first.

    Raises InputError for a file that cannot be read or holds no atoms, an atom of unknown element, and an assembly that
    is not in the file.
    """
    path = Path(path)
    structure = _structure(path)
    if assembly is not None:
        structure = _assembled(path, structure, assembly)
    residues = [residue for chain in structure[0] for residue in chain] if len(structure) else []
    atoms = [atom for residue in residues if not residue.is_water() for atom in _first_conformation(residue)]
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
        b_factor=np.array([atom.b_iso for atom in atoms]),
    )


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


def _first_conformation(residue: gemmi.Residue) -> list[gemmi.Atom]:
    """Atoms without a conformation letter, and those with the first letter of the residue."""
    letters = [atom.altloc for atom in residue if atom.has_altloc()]
    return [atom for atom in residue if not atom.has_altloc() or atom.altloc == letters[0]]


def _assembled(path: Path, structure: gemmi.Structure, name: str) -> gemmi.Structure:
    names = [assembly.name for assembly in structure.assemblies]
    if name not in names:
        raise InputError(f"{path}: has no assembly {name} (it has {', '.join(names) or 'none'})")
    structure.transform_to_assembly(name, gemmi.HowToNameCopiedChain.AddNumber)
    return structure
