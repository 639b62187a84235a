"""Point groups of rotations, and the average of a map over one.

A group acts on the reference: for a rotation R from reference to tomogram, R and R · g describe the same particle.
Settings: Cn has its axis on z; Dn has two-fold axes in the x, y plane, one of them on x; T and O have their two- and
four-fold axes on x, y and z; I has two-fold axes on x, y and z, and five-fold axes in the planes x = 0, y = 0, z = 0,
one of them at (0.851, 0, 0.526).
"""

import re
from functools import cache

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.interpolate import rotate_volume


def symmetry_rotations(symmetry: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """(group, 3, 3) float64 rotations of a point group named C1, C6, D2, T, O, I ...; the identity comes first."""
    return torch.as_tensor(_group_matrices(symmetry.strip().upper()), device=device).clone()


def axis_turns(symmetry: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(a, 3, 3) and (b, 3, 3) float64 of which every rotation of the group is one product first · second.

    The second are those of its rotations that only swap and flip the axes x, y, z: on a grid about the origin they are
    exact and cost nothing. Of O they are all 24, of D4 all 8, of I 12 of 60, of C6 2.
    """
    group = symmetry_rotations(symmetry).numpy()
    exact = np.abs(group - np.rint(group)).max(axis=(1, 2)) < 1e-9
    swaps, first = np.rint(group[exact]), []
    for g in group:
        if not any(np.abs(f.T @ g - swaps).max(axis=(1, 2)).min() < 1e-9 for f in first):
            first.append(g)
    return torch.as_tensor(np.stack(first)), torch.as_tensor(swaps)


def symmetrise_volume(volume: torch.Tensor, symmetry: str) -> torch.Tensor:
    """(z, y, x) mean of the volume over a point group turned about the centre n // 2, by cubic interpolation."""
    rotations = symmetry_rotations(symmetry, volume.device)
    total = volume.clone()
    for rotation in rotations[1:]:
        total += rotate_volume(volume, rotation, method="cubic")
    return total / len(rotations)


@cache
def _group_matrices(name: str) -> np.ndarray:
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})|[TOI]", name)
    if match is None:
        raise InputError(f"symmetry {name!r} is not a point group of rotations: use C1, C6, D2 ..., T, O or I")
    if name == "D1":
        matrices = np.stack([np.eye(3), np.diag([1.0, -1.0, -1.0])])
    else:
        matrices = Rotation.create_group(name).as_matrix()
    identity_first = np.argsort(-np.trace(matrices, axis1=1, axis2=2), kind="stable")
    return np.ascontiguousarray(matrices[identity_first])
