"""Point groups of rotations, helical symmetry, and the average of a map over either.

A group acts on the reference: for a rotation R from reference to tomogram, R and R · g describe the same particle.
Settings: Cn has its axis on z; Dn has two-fold axes in the x, y plane, one of them on x; T and O have their two- and
four-fold axes on x, y and z; I has two-fold axes on x, y and z, and five-fold axes in the planes x = 0, y = 0, z = 0,
one of them at (0.851, 0, 0.526).

H(rise, twist, units) is a helix about z: V(x) = V(Rz(twist) x + rise z), rise in Å, twist in degrees, right-handed for
a positive rise. A box holds some of its places, so `units` of them about the middle one are averaged: the particle in
the pose (R, t) is also in the poses (R g', t - R g' d), g the turn and d the rise of each (g' its inverse). The search
of poses knows nothing of it: neighbours along a filament are particles of their own.
"""

import re
from functools import cache

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.ops.interpolate import centred_points, rotate_volume, sample_volume

_NUMBER = r"[+-]?\d+(?:\.\d*)?|[+-]?\.\d+"
_MOST_UNITS = 199


def symmetry_rotations(symmetry: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """(group, 3, 3) float64 rotations of a point group named C1, C6, D2, T, O, I ...; the identity comes first. Of a
    helix the identity alone: no other turn leaves its places where they are."""
    if _helix(symmetry) is not None:
        return torch.eye(3, dtype=torch.float64, device=device)[None]
    return torch.as_tensor(_group_matrices(symmetry.strip().upper()), device=device).clone()


def symmetry_order(symmetry: str) -> int:
    """Number of its operations, the identity included."""
    return len(symmetry_operations(symmetry)[0])


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


def symmetry_operations(symmetry: str, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """(element, 3, 3) float64 turns h and (element, 3) shifts s, Å: a particle in the pose (R, t) is also in the poses
    (R h, t + R s). The identity comes first; the shifts of a point group are 0."""
    helix = _helix(symmetry)
    if helix is None:
        rotations = symmetry_rotations(symmetry, device)
        return rotations, torch.zeros(len(rotations), 3, dtype=torch.float64, device=device)
    rise, twist, units = helix
    place = np.arange(units) - (units - 1) // 2
    place = place[np.argsort(np.abs(place), kind="stable")]
    turns = torch.as_tensor(Rotation.from_euler("z", -twist * place[:, None], degrees=True).as_matrix(), device=device)
    shifts = torch.zeros(units, 3, dtype=torch.float64, device=device)
    shifts[:, 2] = -torch.as_tensor(rise * place, dtype=torch.float64, device=device)
    return turns, shifts


def inserted_operations(symmetry: str, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Turns (a, 3, 3) and shifts (a, 3), Å, as of symmetry_operations, of which `axis_turns` makes all the others."""
    if _helix(symmetry) is not None:
        return symmetry_operations(symmetry, device)
    turns = axis_turns(symmetry)[0].to(device)
    return turns, torch.zeros(len(turns), 3, dtype=torch.float64, device=device)


def symmetrise_volume(volume: torch.Tensor, symmetry: str, voxel_size: float = 1.0) -> torch.Tensor:
    """(z, y, x) mean of the volume over its symmetry about the centre n // 2, by cubic interpolation; voxel_size in Å
    is for the rise of a helix."""
    turns, shifts = symmetry_operations(symmetry, volume.device)
    if shifts.any():
        return _along_helix(volume, turns, shifts / voxel_size)
    total = volume.clone()
    for turn in turns[1:]:
        total += rotate_volume(volume, turn, method="cubic")
    return total / len(turns)


def _along_helix(volume: torch.Tensor, turns: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Mean of V(h' (x - s)), the density that the pose (h, s) puts at x, over those whose place is in the volume;
    shifts in voxels."""
    points = centred_points(tuple(volume.shape), volume.device).double()
    low = torch.tensor([-(n // 2) for n in volume.shape[::-1]], dtype=torch.float64, device=volume.device)
    high = torch.tensor([n - n // 2 - 1 for n in volume.shape[::-1]], dtype=torch.float64, device=volume.device)
    total, number = volume.clone(), torch.ones_like(volume)
    for turn, shift in zip(turns[1:], shifts[1:], strict=True):
        place = (points - shift) @ turn
        inside = ((place >= low - 1e-6) & (place <= high + 1e-6)).all(-1)
        total += torch.where(inside, sample_volume(volume, place, method="cubic").to(total), 0)
        number += inside
    return total / number


def _helix(symmetry: str) -> tuple[float, float, int] | None:
    """rise, twist and units of a helix; None where it is none."""
    text = symmetry.replace(" ", "").upper()
    match = re.fullmatch(rf"H\(({_NUMBER}),({_NUMBER}),(\d+)\)", text)
    if match is None:
        if text.startswith("H"):
            raise InputError(
                f"symmetry {symmetry!r}: a helix is H(rise in Å, twist in degrees, units), as H(41,27.7,9)"
            )
        return None
    rise, twist, units = float(match[1]), float(match[2]), int(match[3])
    if not 1 <= units <= _MOST_UNITS or not 0 < rise < 1e4 or abs(twist) > 360:
        raise InputError(
            f"symmetry {symmetry!r}: rise > 0 Å, twist within ± 360° and 1 to {_MOST_UNITS} units are taken"
        )
    return rise, twist, units


@cache
def _group_matrices(name: str) -> np.ndarray:
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})|[TOI]", name)
    if match is None:
        raise InputError(
            f"symmetry {name!r} is not a point group of rotations: use C1, C6, D2 ..., T, O, I or H(rise,twist,units)"
        )
    if name == "D1":
        matrices = np.stack([np.eye(3), np.diag([1.0, -1.0, -1.0])])
    else:
        matrices = Rotation.create_group(name).as_matrix()
    identity_first = np.argsort(-np.trace(matrices, axis1=1, axis2=2), kind="stable")
    return np.ascontiguousarray(matrices[identity_first])
