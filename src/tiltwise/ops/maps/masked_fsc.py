"""Resolution of two half maps within a mask, less the mask's own share (Chen et al. 2013, Ultramicroscopy 135, 24)."""

from dataclasses import dataclass

import torch

from tiltwise.ops.fsc import correct_for_mask, first_crossing, fourier_shell_correlation, randomise_phases
from tiltwise.ops.maps.fsc_precision import crossing_with_range, independent_values

RESOLUTION_THRESHOLD = 0.143
_RANDOMISE_BELOW = 0.8
_RANDOMISATIONS = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MaskedFsc:
    frequency: torch.Tensor
    """(shell,) 1/Å."""
    unmasked: torch.Tensor
    """(shell,) FSC of the halves as they are."""
    masked: torch.Tensor
    """(shell,) FSC of the masked halves."""
    randomised: torch.Tensor
    """(shell,) FSC of the masked halves with random phases from randomised_from on."""
    corrected: torch.Tensor
    """(shell,) the masked FSC without the mask's share."""
    randomised_from: int
    """Shell from which phases were randomised."""

    values: torch.Tensor
    """(shell,) independent values within the mask (ops/maps/fsc_precision.py)."""

    @property
    def resolution(self) -> float:
        """Å, where the corrected curve, averaged over shells that hold too few values, first falls below 0.143;
        infinite where the halves agree in no shell."""
        return crossing_with_range(self.frequency, self.corrected, self.values, RESOLUTION_THRESHOLD)[0]

    @property
    def resolution_range(self) -> tuple[float, float]:
        """Å, finest and coarsest: 95 % interval of `resolution`, by the number of independent values."""
        return crossing_with_range(self.frequency, self.corrected, self.values, RESOLUTION_THRESHOLD)[1]

    @property
    def resolution_unmasked(self) -> float:
        """Å, of the curve of the halves as they are."""
        return first_crossing(self.frequency, self.unmasked, RESOLUTION_THRESHOLD)


def unmasked_resolution(half1: torch.Tensor, half2: torch.Tensor, voxel_size: float) -> float:
    """Å, where the FSC of two cubic halves as they are first falls below 0.143."""
    unmasked = fourier_shell_correlation(half1, half2).cpu()
    return first_crossing(_shell_frequency(unmasked, len(half1), voxel_size), unmasked, RESOLUTION_THRESHOLD)


def measure_masked_fsc(
    half1: torch.Tensor, half2: torch.Tensor, mask: torch.Tensor, voxel_size: float, seed: int, *, order: int = 1
) -> MaskedFsc:
    """FSC of two cubic halves with and without the mask; phases are made random where the unmasked FSC is below 0.8.

    order is the number of symmetry operations imposed on the halves: so many samples of a shell are copies of one.
    """
    unmasked = fourier_shell_correlation(half1, half2).cpu()
    frequency = _shell_frequency(unmasked, len(half1), voxel_size)
    masked = fourier_shell_correlation(half1 * mask, half2 * mask).cpu()
    below = torch.nonzero(unmasked[1:] < _RANDOMISE_BELOW).flatten()
    first = int(below[0]) + 1 if len(below) else len(unmasked)
    generator = torch.Generator().manual_seed(seed)
    randomised = torch.zeros_like(masked)
    for _ in range(_RANDOMISATIONS):
        a, b = (randomise_phases(half, first, generator) * mask for half in (half1, half2))
        randomised += fourier_shell_correlation(a, b).cpu() / _RANDOMISATIONS
    return MaskedFsc(
        frequency=frequency,
        unmasked=unmasked,
        masked=masked,
        randomised=randomised,
        corrected=correct_for_mask(masked, randomised, first),
        randomised_from=first,
        values=independent_values(len(half1), mask.cpu(), order),
    )


def reference_correlation(fsc: torch.Tensor) -> torch.Tensor:
    """(shell,) C_ref = sqrt(2 FSC / (1 + FSC)): the correlation of the mean of two halves with the truth (Rosenthal &
    Henderson 2003, eq. 19); also the weight that takes amplitudes of signal and noise to those of the signal."""
    positive = fsc.clamp(0, 1)
    return (2 * positive / (1 + positive)).sqrt()


def _shell_frequency(fsc: torch.Tensor, side: int, voxel_size: float) -> torch.Tensor:
    return torch.arange(len(fsc), dtype=torch.float64) / (side * voxel_size)
