"""One rigid motion that brings a map onto another, as a measurement against a known map needs it."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass, radial_filter
from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.maps.sharpening import shell_amplitude
from tiltwise.ops.rotations import rotation_vector_to_matrix
from tiltwise.ops.steady import steady_mean, steady_product, steady_rfftn

_COARSE_RESOLUTION = 25.0  # Å, first round: motions up to about half of this are found
_ROUNDS, _STEPS = 2, 5
_SIGNIFICANT = 0.3  # FSC below which a shell does not decide
_INSIDE = 0.01  # of the mask; voxels below do not count


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RigidMotion:
    """x -> rotation · x + shift."""

    rotation: np.ndarray
    """(3, 3)."""
    shift: np.ndarray
    """(3,) Å."""

    @staticmethod
    def identity() -> "RigidMotion":
        """No motion."""
        return RigidMotion(rotation=np.eye(3), shift=np.zeros(3))

    @property
    def angle(self) -> float:
        """Of the rotation, degrees."""
        return float(np.degrees(Rotation.from_matrix(self.rotation).magnitude()))

    @property
    def distance(self) -> float:
        """Length of the shift, Å."""
        return float(np.linalg.norm(self.shift))

    def inverse(self) -> "RigidMotion":
        """The motion back."""
        return RigidMotion(rotation=self.rotation.T, shift=-self.rotation.T @ self.shift)

    def after(self, first: "RigidMotion") -> "RigidMotion":
        """This motion after another."""
        return RigidMotion(rotation=self.rotation @ first.rotation, shift=self.rotation @ first.shift + self.shift)


def move_map(moving: Volume, motion: RigidMotion, like: Volume) -> torch.Tensor:
    """(z, y, x) float32: the map moved actively, what was at x is at `motion` x, on the grid of `like`.

    Cubic interpolation on a grid twice as fine, so that all of the map's band comes through.
    """
    points = centred_points(like.data.shape) * like.voxel_size
    data = torch.as_tensor(np.array(moving.data, dtype=np.float32))
    finer = fourier_rescale(data, tuple(2 * n for n in data.shape))
    return _sample_moved(finer, moving.voxel_size / 2, motion, points).float()


def superpose(moving: Volume, fixed: Volume, mask: torch.Tensor, start: RigidMotion | None = None) -> RigidMotion:
    """The rigid motion that brings `moving` onto `fixed` within a mask (z, y, x) on the grid of `fixed`.

    Least squares of moved = a · fixed by Gauss-Newton steps that take the gradient of `fixed` (inverse compositional;
    Baker & Matthews 2004): first low-passed, then with every shell weighted by the signal-to-noise ratio that the
    correlation of the two implies. It must start within about a dozen Å, at the map's rim, of the answer. A round in
    which the maps have nothing in common changes nothing.
    """
    motion = start or RigidMotion.identity()
    truth = torch.as_tensor(np.array(fixed.data, dtype=np.float32))
    given = torch.as_tensor(np.array(moving.data, dtype=np.float32))
    for stage in range(_ROUNDS):
        if stage == 0:
            target = low_pass(truth, _COARSE_RESOLUTION, fixed.voxel_size)
            source = low_pass(given, _COARSE_RESOLUTION, moving.voxel_size)
        else:
            found = _weighted(moving, motion, fixed, truth, given, mask)
            if found is None:
                break
            target, source = found
        motion = _gauss_newton(source, moving.voxel_size, target, fixed.voxel_size, mask, motion)
    return motion


def _gauss_newton(
    source: torch.Tensor,
    source_voxel: float,
    target: torch.Tensor,
    voxel: float,
    mask: torch.Tensor,
    start: RigidMotion,
) -> RigidMotion:
    inside = mask > _INSIDE
    weight = mask[inside].double()
    points = centred_points(tuple(target.shape))[inside] * voxel
    gradient = torch.stack([g[inside] for g in _gradient(target, voxel)], dim=-1).double()
    radius = float(steady_mean(points.norm(dim=1)))
    turn = torch.linalg.cross(points, gradient) / radius  # d/dω of f(x + ω × x) is x × ∇f; ω in units of 1 / radius
    columns = torch.cat([target[inside].double()[:, None], turn, gradient, torch.ones(len(points), 1)], dim=1)
    design = columns * weight[:, None]
    normal = steady_product(design.T, design)
    motion = start
    for _ in range(_STEPS):
        values = _sample_moved(source, source_voxel, motion, points).double()
        solution, fault = torch.linalg.solve_ex(normal, steady_product(design.T, (values * weight)[:, None])[:, 0])
        step = solution[1:7] / solution[0]
        if fault or not step.isfinite().all():  # an empty map, or none of it in the other
            return start
        rotation = rotation_vector_to_matrix(torch.rad2deg(step[:3] / radius)).numpy()
        motion = RigidMotion(rotation=rotation, shift=step[3:].numpy()).after(motion)
    return motion


def _weighted(
    moving: Volume, motion: RigidMotion, fixed: Volume, truth: torch.Tensor, given: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Both maps whitened and weighted by sqrt(C² / (1 - C²)) of their correlation C, up to where it is significant;
    None where it is so nowhere."""
    moved = move_map(moving, motion, fixed)
    n = len(truth)
    correlation = fourier_shell_correlation(moved * mask, truth * mask).clamp(0, 0.999)
    below = torch.nonzero(correlation[1:] < _SIGNIFICANT).flatten()
    last = int(below[0]) + 1 if len(below) else len(correlation)
    weight = (correlation**2 / (1 - correlation**2)).sqrt()
    weight[last:] = 0
    weight[0] = 0
    if not weight.any():
        return None
    frequency = torch.arange(len(weight), dtype=torch.float64) / (n * fixed.voxel_size)
    curves = [weight / shell_amplitude(a * mask).clamp_min(1e-12) for a in (truth, moved)]
    target = radial_filter(truth, frequency, curves[0] / curves[0].max(), fixed.voxel_size)
    source = radial_filter(given, frequency, curves[1] / curves[1].max(), moving.voxel_size)
    return target, source


def _sample_moved(data: torch.Tensor, voxel: float, motion: RigidMotion, points: torch.Tensor) -> torch.Tensor:
    """Values at points (..., 3), Å, of the moved map: those of the map at the points moved back."""
    back = motion.inverse()
    source = points @ torch.as_tensor(back.rotation).T + torch.as_tensor(back.shift)
    return sample_volume(data, source / voxel, method="cubic")


def _gradient(volume: torch.Tensor, voxel: float) -> list[torch.Tensor]:
    """Derivatives along x, y, z, per Å, in Fourier space."""
    spectrum, n = steady_rfftn(volume), volume.shape
    frequency = (
        torch.fft.rfftfreq(n[2], voxel),
        torch.fft.fftfreq(n[1], voxel)[:, None],
        torch.fft.fftfreq(n[0], voxel),
    )
    frequency = (*frequency[:2], frequency[2][:, None, None])
    return [torch.fft.irfftn(2j * torch.pi * f * spectrum, s=tuple(n)) for f in frequency]
