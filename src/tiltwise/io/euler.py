"""Euler angles as other programs write them; inside, a rotation is never three angles (docs/conventions.md)."""

import warnings
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

EulerConvention = Literal["relion", "warp", "stopgap", "dynamo"]
_SEQUENCES = {"relion": ("ZYZ", True), "warp": ("ZYZ", True), "stopgap": ("zxz", False), "dynamo": ("zxz", True)}


def euler_to_rotation(angles: np.ndarray, convention: EulerConvention = "relion") -> Rotation:
    """Rotation from reference to tomogram of Euler angles (..., 3) in degrees, in another program's convention.

    relion and warp: (rot, tilt, psi), the inverse of intrinsic ZYZ; stopgap: (phi, theta, psi), extrinsic zxz;
    dynamo: (tdrot, tilt, narot), the inverse of extrinsic zxz. STOPGAP's and TOM's files hold phi, psi, theta.
    """
    sequence, inverted = _SEQUENCES[convention]
    rotation = Rotation.from_euler(sequence, np.asarray(angles, dtype=np.float64), degrees=True)
    return rotation.inv() if inverted else rotation


def rotation_to_euler(rotation: Rotation, convention: EulerConvention = "relion") -> np.ndarray:
    """(..., 3) Euler angles in degrees of rotations from reference to tomogram; the inverse of euler_to_rotation.

    Where the middle angle is 0 or 180 only a sum of the others is defined: all of it goes into the first or the last.
    """
    sequence, inverted = _SEQUENCES[convention]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        return (rotation.inv() if inverted else rotation).as_euler(sequence, degrees=True)
