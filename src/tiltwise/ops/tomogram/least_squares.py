"""Least squares for a tomogram, given the normal operator N = AᵀWA and the back-projected data b = AᵀWy.

Both methods start from nothing and reach the well measured components first, so that the number of iterations is the
regularisation. Volumes are tensors of any shape; the operators give new ones.
"""

from collections.abc import Callable

import torch

Operator = Callable[[torch.Tensor], torch.Tensor]


def conjugate_gradients(
    normal: Operator, data: torch.Tensor, iterations: int, report: Callable[[int], None]
) -> tuple[torch.Tensor, list[float]]:
    """Minimise xᵀNx / 2 - bᵀx by conjugate gradients (Hestenes & Stiefel 1952); gives x and |b - Nx| / |b| by step."""
    x, residual = torch.zeros_like(data), data.clone()
    direction = residual.clone()
    square = first = float(residual.double().square().sum())
    history: list[float] = []
    for step in range(iterations):
        if not square > 0:
            break
        image = normal(direction)
        length = square / float((direction.double() * image).sum())
        x.add_(direction, alpha=length)
        residual.sub_(image, alpha=length)
        before, square = square, float(residual.double().square().sum())
        direction.mul_(square / before).add_(residual)
        history.append((square / first) ** 0.5)
        report(step + 1)
    return x, history


def simultaneous_steps(
    normal: Operator,
    data: torch.Tensor,
    coverage: torch.Tensor,
    constrain: Operator,
    iterations: int,
    report: Callable[[int], None],
) -> tuple[torch.Tensor, list[float]]:
    """SIRT, x <- P(x + C (b - Nx)), C = 1 / coverage (Gilbert 1972); gives x and |b - Nx| / |b| before each step.

    With W = 1 / (A 1) and coverage Aᵀ1, C N has no eigenvalue above 1, so that every step converges. P is `constrain`,
    which may change its argument.
    """
    x = torch.zeros_like(data)
    step_size = torch.where(coverage > 1e-6 * coverage.max(), 1 / coverage.clamp_min(1e-12), 0.0)
    first = float(data.double().norm())
    history: list[float] = []
    for step in range(iterations):
        residual = data - normal(x) if step else data.clone()
        history.append(float(residual.double().norm()) / first if first else 0.0)
        x = constrain(x.add_(residual.mul_(step_size)))
        report(step + 1)
    return x, history


def flatten(volume: torch.Tensor, weight: float, iterations: int = 5) -> torch.Tensor:
    """Total-variation denoising argmin |u - v|² / 2 + weight · TV(u) by dual projection (Chambolle 2004), in the units
    of the volume (z, y, x). Five steps go most of the way; SIRT comes back to it after each of its own."""
    dual = [torch.zeros_like(volume) for _ in range(3)]
    for _ in range(iterations):
        scaled = _divergence(dual).sub_(volume / weight)
        slopes = [_difference(scaled, axis) for axis in range(3)]
        norm = sum(s.square() for s in slopes).sqrt_().mul_(1 / 12).add_(1)
        for p, s in zip(dual, slopes, strict=True):
            p.add_(s, alpha=1 / 12).div_(norm)
    return volume - weight * _divergence(dual)


def _difference(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Forward difference, 0 at the last sample."""
    out = torch.zeros_like(values)
    n = values.shape[axis]
    out.narrow(axis, 0, n - 1).copy_(values.narrow(axis, 1, n - 1)).sub_(values.narrow(axis, 0, n - 1))
    return out


def _divergence(dual: list[torch.Tensor]) -> torch.Tensor:
    """Minus the adjoint of the three forward differences."""
    out = torch.zeros_like(dual[0])
    for axis, p in enumerate(dual):
        n = p.shape[axis]
        out.narrow(axis, 0, n - 1).add_(p.narrow(axis, 0, n - 1))
        out.narrow(axis, 1, n - 1).sub_(p.narrow(axis, 0, n - 1))
    return out
