"""Local refinement of poses against the images of the tilts, by Gauss-Newton on the likelihood.

With whitened images X and the model m = transfer · V̂(Mᵀ [k, 0]) · exp(-2 pi i k·t) the log likelihood is, up to a
constant, L = sum over one half plane of Re(X* m) - |m|² / 2. A pose has six parameters: a rotation vector w about the
reference's own axes, R ← R exp(w), and a shift of the particle in the tomogram, Å. The inverse of the Gauss-Newton
Hessian, the Fisher information, is the covariance of the pose.
"""

from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.ops.kernels import poses as kernels
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.slices import SpectralGrid
from tiltwise.ops.rotations import held_in_cone, rotation_vector_to_matrix

_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_LARGEST_TURN = 10.0  # degrees in one step: the slope of a slice says nothing farther away


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Poses:
    """Poses of particles, and how well their images agree with a reference there."""

    rotation: torch.Tensor
    """(particle, 3, 3) float64 reference to tomogram."""
    shift: torch.Tensor
    """(particle, 3) float64 from the position the images were cut at, Å."""
    likelihood: torch.Tensor
    """(particle,) float64 log likelihood against no particle at all."""
    amplitude: torch.Tensor
    """(particle,) float64 Re<X, m> / <m, m>: 1 where the images hold the reference, 0 where they do not."""
    covariance: torch.Tensor
    """(particle, 6, 6) float64 of rotation vector (degrees) and shift (Å)."""


def slice_terms(
    images: ParticleImages, reference: SpectralGrid, rotation: torch.Tensor, image_shift: torch.Tensor
) -> torch.Tensor:
    """(particle, tilt, 22) float64 agreement of each image with the reference's slice, and its derivatives.

    rotation (particle, 3, 3); image_shift (particle, tilt, 2) Å in the image plane. With m the model, e = X - m, and
    J_w, J_t the derivatives of m by rotation vector (radians) and image shift (Å), the terms are: 0 Re(X* m); 1 |m|²;
    2-4 Re(J_w* e); 5-6 Re(J_t* e); 7-12 upper triangle of Re(J_w* J_w); 13-18 Re(J_w* J_t); 19-21 of Re(J_t* J_t).
    """
    if images.data.device.type != "cpu":
        return _slice_terms_plain(images, reference, rotation, image_shift)
    unit = 2 * np.pi / (images.box_size * images.pixel_size)
    terms = np.empty((*images.data.shape[:2], kernels.TERMS), np.float64)
    kernels.slice_terms(
        reference.values.numpy(),
        images.data.numpy(),
        images.transfer.numpy(),
        np.ascontiguousarray(images.rotations.numpy()),
        images.points.double().numpy(),
        np.ascontiguousarray(rotation.double().numpy() * reference.step),
        np.ascontiguousarray(image_shift.double().numpy() * unit),
        terms,
    )
    terms[..., 5:7] *= unit
    terms[..., 13:19] *= unit
    terms[..., 19:22] *= unit**2
    return torch.from_numpy(terms)


def likelihood_terms(
    images: ParticleImages, reference: SpectralGrid, rotation: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log likelihood (particle,), gradient (particle, 6), Fisher information (particle, 6, 6), |m|² (particle,).

    Derivatives are per radian and Å.
    """
    plane = images.rotations[:, :2]  # (tilt, 2, 3): from a shift in the tomogram to one in the image
    terms = slice_terms(images, reference, rotation, torch.einsum("tij,pj->pti", plane, shift))
    likelihood = (terms[..., 0] - 0.5 * terms[..., 1]).sum(1)
    gradient = torch.cat([terms[..., 2:5].sum(1), torch.einsum("pti,tij->pj", terms[..., 5:7], plane)], dim=1)
    information = terms.new_zeros(len(terms), 6, 6)
    for j, (row, column) in enumerate(_UPPER):
        information[:, row, column] = information[:, column, row] = terms[..., 7 + j].sum(1)
    cross = torch.einsum("ptri,tij->prj", terms[..., 13:19].unflatten(-1, (3, 2)), plane)
    information[:, :3, 3:], information[:, 3:, :3] = cross, cross.transpose(1, 2)
    square = torch.stack([terms[..., 19], terms[..., 20], terms[..., 20], terms[..., 21]], -1).unflatten(-1, (2, 2))
    information[:, 3:, 3:] = torch.einsum("tij,ptik,tkl->pjl", plane, square, plane)
    return likelihood, gradient, information, terms[..., 1].sum(1)


def refine_poses(
    images: ParticleImages,
    reference: SpectralGrid,
    rotation: torch.Tensor,
    shift: torch.Tensor,
    *,
    steps: int = 6,
    allowed_shift: torch.Tensor | None = None,
    allowed_direction: torch.Tensor | None = None,
) -> Poses:
    """Levenberg-Marquardt from rotation (particle, 3, 3) and shift (particle, 3), all particles at once.

    A step that lowers a particle's likelihood is not taken and its damping grows tenfold. allowed_shift (particle, 4):
    centre x, y, z and radius, Å, of the ball in which shift stays: a step that would leave it ends at its edge, and the
    turn is the best one for that. allowed_direction (particle, 4): axis x, y, z and
    cosine of the half-angle of the cone in which the reference's z axis stays: what leaves it is turned back onto its
    edge, the start too.
    """

    def held(rotation: torch.Tensor) -> torch.Tensor:
        return rotation if allowed_direction is None else held_in_cone(rotation, allowed_direction)

    current = held(rotation.double()), shift.double()
    value, gradient, information, power = likelihood_terms(images, reference, *current)
    damping = torch.full_like(value, 1e-2)
    for _ in range(steps):
        move = _damped_step(gradient, information, damping)
        if allowed_shift is not None:
            move = _step_in_ball(move, current[1], allowed_shift, gradient, information, damping)
        turned = held(current[0] @ rotation_vector_to_matrix(torch.rad2deg(move[:, :3])))
        trial = turned, current[1] + move[:, 3:]
        new = likelihood_terms(images, reference, *trial)
        better = new[0] > value
        current = tuple(torch.where(_like(better, a), a, b) for a, b in zip(trial, current, strict=True))
        known = (value, gradient, information, power)
        value, gradient, information, power = (
            torch.where(_like(better, a), a, b) for a, b in zip(new, known, strict=True)
        )
        damping = torch.where(better, damping * 0.2, damping * 10.0).clamp(1e-6, 1e6)
    return Poses(
        rotation=current[0],
        shift=current[1],
        likelihood=value,
        amplitude=value / power.clamp_min(1e-30) + 0.5,
        covariance=_covariance(information),
    )


def _step_in_ball(
    move: torch.Tensor,
    shift: torch.Tensor,
    ball: torch.Tensor,
    gradient: torch.Tensor,
    information: torch.Tensor,
    damping: torch.Tensor,
) -> torch.Tensor:
    """Steps (particle, 6) from shift (particle, 3) that end in the ball (particle, 4). Where one would leave it, s is
    the shift to its edge, and the turn w solves (H_ww + damping) w = g_w - H_ws s."""
    end = shift + move[:, 3:]
    held = held_in_ball(end, ball)
    short = held - shift
    left = gradient[:, :3] - torch.einsum("pij,pj->pi", information[:, :3, 3:], short)
    turn = _damped_step(left, information[:, :3, :3], damping)
    return torch.where((held != end).any(1, keepdim=True), torch.cat([turn, short], dim=1), move)


def held_in_ball(shift: torch.Tensor, ball: torch.Tensor) -> torch.Tensor:
    """Shifts (..., 3) brought to the edge of the ball (..., 4), centre and radius, where they lie outside; those inside
    stay as they are, bit by bit."""
    away = shift - ball[..., :3]
    distance = away.norm(dim=-1, keepdim=True)
    return torch.where(distance > ball[..., 3:], ball[..., :3] + away * (ball[..., 3:] / distance), shift)


def _damped_step(gradient: torch.Tensor, information: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
    diagonal = torch.diagonal(information, dim1=1, dim2=2)
    floor = diagonal.amax(0, keepdim=True) * 1e-9 + 1e-12
    system = information + torch.diag_embed(diagonal * damping[:, None] + floor)
    move = torch.linalg.solve(system, gradient)
    angle = torch.rad2deg(move[:, :3].norm(dim=1))
    return move * (_LARGEST_TURN / angle.clamp_min(_LARGEST_TURN))[:, None]


def _covariance(information: torch.Tensor) -> torch.Tensor:
    diagonal = torch.diagonal(information, dim1=1, dim2=2)
    inverse = torch.linalg.inv(information + torch.diag_embed(diagonal * 1e-9 + 1e-12))
    unit = torch.tensor([180 / np.pi] * 3 + [1.0] * 3, dtype=inverse.dtype, device=inverse.device)
    return inverse * unit[:, None] * unit


def _like(flag: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return flag.reshape(-1, *([1] * (values.ndim - 1)))


def _slice_terms_plain(
    images: ParticleImages, reference: SpectralGrid, rotation: torch.Tensor, image_shift: torch.Tensor
) -> torch.Tensor:
    """The plain twin of the kernel, by interpolation of value and gradient on tensors."""
    grid, centre = reference.values, reference.values.shape[0] // 2
    m = torch.einsum("tij,pjk->ptik", images.rotations, rotation.double())
    position = reference.step * torch.einsum("nc,ptcx->ptnx", images.points.double(), m[..., :2, :])
    mirrored = position[..., 0] < 0
    position = torch.where(mirrored[..., None], -position, position)
    base = position.floor()
    f = (position - base).float()
    index = base.long() + torch.tensor([0, centre, centre], device=grid.device)
    limit = torch.tensor(grid.shape[::-1], device=grid.device) - 2
    inside = ((index >= 0) & (index <= limit)).all(-1)
    index = torch.where(inside[..., None], index, torch.zeros_like(index))
    value, slope = 0, [0, 0, 0]
    for corner in ((x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)):
        g = grid[index[..., 2] + corner[2], index[..., 1] + corner[1], index[..., 0] + corner[0]]
        w = [f[..., a] if c else 1 - f[..., a] for a, c in enumerate(corner)]
        sign = [1 if c else -1 for c in corner]
        value = value + w[0] * w[1] * w[2] * g
        for a, others in enumerate(((1, 2), (0, 2), (0, 1))):
            slope[a] = slope[a] + sign[a] * w[others[0]] * w[others[1]] * g
    amplitude = images.transfer * inside
    turn = torch.linalg.cross(torch.stack(slope, -1), position.to(torch.complex64))
    value, turn = (torch.where(_last(mirrored, v), v.conj(), v) for v in (value, turn))
    unit = -2 * torch.pi / (images.box_size * images.pixel_size) * images.points
    angle = torch.einsum("nc,ptc->ptn", unit, image_shift.float())
    observed = images.data * torch.polar(torch.ones_like(angle), -angle) * inside
    model = amplitude * value
    derivative = torch.cat([amplitude[..., None] * turn, 1j * unit * model[..., None]], -1)
    error = observed - model
    gradient = (derivative.conj() * error[..., None]).real.double().sum(2)
    products = torch.einsum("ptna,ptnb->ptab", derivative.conj(), derivative).real.double()
    pairs = [*_UPPER, *((a, b) for a in range(3) for b in (3, 4)), (3, 3), (3, 4), (4, 4)]
    upper = torch.stack([products[..., a, b] for a, b in pairs], -1)
    first = torch.stack([(observed.conj() * model).real.double().sum(2), model.abs().square().double().sum(2)], -1)
    return torch.cat([first, gradient, upper], -1)


def _last(flag: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return flag if values.ndim == flag.ndim else flag[..., None]
