"""How well a Fourier shell correlation is known: by the number of independent values that each shell holds.

A shell of S samples of the transform of a real map holds N = S f / (2 g) independent complex values. Friedel mates are
one value. A mask m ties neighbouring samples together: of the cross sum of two masked maps of white noise it leaves the
variance of f = (Σ m²)² / (n³ Σ m⁴) of the samples (a single shell spreads by less, as a half of what is tied together
lies in its neighbours; their mean by as much). A group of g operations imposed on the map makes g samples copies of
one. A correlation F of N pairs is measured with the standard deviation (1 - F²) / sqrt(2 N): in a box twice as wide as
an octahedral particle, some 0.1 in a shell of 40, nearly the threshold itself, and the curve crosses it where
chance will have it. So neighbouring shells are averaged until they hold enough, and a resolution is given with its
range.
"""

import torch

from tiltwise.ops.fsc import first_crossing, hermitian_weight, shell_index, shell_sums

LEAST_VALUES = 200.0
"""Independent values to a point of an averaged curve: chance spreads by 0.05, a third of 0.143."""
_WIDEST = 0.15
"""Of its frequency, how far to either side a point is averaged at most."""
_NORMAL = 1.96
"""Standard deviations of a 95 % interval."""


def independent_values(side: int, mask: torch.Tensor | None = None, order: int = 1) -> torch.Tensor:
    """(side // 2 + 1,) float64 independent complex values N in each shell of a cube within a mask (z, y, x).

    order is the number g of symmetry operations that were imposed. At least 1.
    """
    shape = (side,) * 3
    shells, weight = shell_index(shape), hermitian_weight(shape)
    samples = shell_sums(torch.ones(shells.shape), shells, side // 2 + 1, weight)
    part = 1.0
    if mask is not None:
        square = mask.double().square()
        part = float(square.sum() ** 2 / (side**3 * square.square().sum()).clamp_min(1e-300))
    return (samples * part / (2 * order)).clamp_min(1.0)


def average_shells(curve: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A curve (shell,) whose every point is the mean of as few shells to either side as hold LEAST_VALUES together,
    weighted by their values (shell,), and the values (shell,) of each mean. The origin stays alone."""
    last, mean, number = len(curve) - 1, curve.clone(), values.clone()
    for shell in range(1, last + 1):
        widest = min(int(_WIDEST * shell), shell - 1, last - shell)
        for reach in range(widest + 1):
            own = slice(shell - reach, shell + reach + 1)
            number[shell] = values[own].sum()
            mean[shell] = (curve[own] * values[own]).sum() / number[shell]
            if number[shell] >= LEAST_VALUES:
                break
    return mean, number


def crossing_with_range(
    frequency: torch.Tensor, curve: torch.Tensor, values: torch.Tensor, threshold: float
) -> tuple[float, tuple[float, float]]:
    """Spacing, Å, at which the averaged curve first falls below the threshold, and its 95 % range, finest first: where
    the curve raised and lowered by 1.96 of its standard deviations does. frequency, curve, values (shell,), 1/Å."""
    mean, number = average_shells(curve, values)
    spread = _NORMAL * (1 - mean.clamp(-1, 1).square()) / (2 * number).sqrt()
    reached, fine, coarse = (first_crossing(frequency, c, threshold) for c in (mean, mean + spread, mean - spread))
    return reached, (fine, coarse)
