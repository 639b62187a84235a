"""Atoms of a molecule, as a model file lists them or as a procedure makes them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Atoms:
    position: np.ndarray
    """(atom, 3) x, y, z, Å."""
    element: np.ndarray
    """(atom,) chemical symbol, text: C, N, O, S, P, H ..."""
    b_factor: np.ndarray
    """(atom,) isotropic B-factor, Å²."""
    hydrogens: np.ndarray | None = None
    """(atom,) hydrogens that each atom carries beside those listed; None where only the mean of proteins is known."""

    def __len__(self) -> int:
        return len(self.position)
