"""Fourier shell correlation on hard shells, with Hermitian weights and float64 sums."""

import torch

from tiltwise.ops.steady import steady_rfftn


def shell_index(shape: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Tensor:
    """Shell number of each sample of rfftn of a cubic (or square) array: the nearest integer to n·|k| / sampling."""
    n = shape[0]
    axes = [torch.fft.fftfreq(m, 1.0, device=device, dtype=torch.float64) for m in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1], 1.0, device=device, dtype=torch.float64))
    total = torch.zeros([len(a) for a in axes], device=device, dtype=torch.float64)
    for i, axis in enumerate(axes):
        total = total + axis.reshape([-1 if j == i else 1 for j in range(len(axes))]) ** 2
    return (total.sqrt() * n + 0.5).floor().long()


def hermitian_weight(shape: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Tensor:
    """(x // 2 + 1,) 2 for columns that stand for two samples of the full transform, 1 for the first and even last."""
    weight = torch.full((shape[-1] // 2 + 1,), 2.0, dtype=torch.float64, device=device)
    weight[0] = 1
    if shape[-1] % 2 == 0:
        weight[-1] = 1
    return weight


def shell_sums(values: torch.Tensor, shells: torch.Tensor, number: int, weight: torch.Tensor) -> torch.Tensor:
    """(number,) float64 sums of real values over shells 0 to number - 1, counting each sample with its weight."""
    flat = (values.double() * weight).reshape(-1)
    inside = shells.reshape(-1) < number
    return torch.zeros(number, dtype=torch.float64, device=values.device).index_add_(
        0, shells.reshape(-1)[inside], flat[inside]
    )


def fourier_shell_correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(n // 2 + 1,) float64 correlation of two real cubic arrays of side n in shells of width 1/(n · voxel)."""
    shape, number = tuple(a.shape), a.shape[0] // 2 + 1
    fa, fb = steady_rfftn(a.double()), steady_rfftn(b.double())
    shells, weight = shell_index(shape, a.device), hermitian_weight(shape, a.device)
    cross, *power = (
        shell_sums(first.real * second.real + first.imag * second.imag, shells, number, weight)
        for first, second in ((fa, fb), (fa, fa), (fb, fb))
    )
    return cross / (power[0] * power[1]).sqrt().clamp_min(1e-300)


def first_crossing(frequency: torch.Tensor, correlation: torch.Tensor, threshold: float) -> float:
    """Spacing in Å at which the correlation first falls below the threshold, linear between shells.

    frequency (shell,) 1/Å. If it never falls below, the spacing of the last shell (the data do not reach further); if
    it is below from shell 1 on, infinity.
    """
    below = torch.nonzero(correlation[1:] < threshold).flatten()
    if len(below) == 0:
        return float(1 / frequency[-1])
    j = int(below[0]) + 1
    if j == 1:
        return float("inf")
    c0, c1 = float(correlation[j - 1]), float(correlation[j])
    f = float(frequency[j - 1]) + (c0 - threshold) / (c0 - c1) * float(frequency[j] - frequency[j - 1])
    return 1 / f


def randomise_phases(volume: torch.Tensor, first_shell: int, generator: torch.Generator) -> torch.Tensor:
    """The volume with its amplitudes kept and its phases drawn anew from shell first_shell on (corners included).

    The phases are those of white noise made on the CPU, so they have the symmetry of a real volume's transform and are
    the same on every device.
    """
    shape = tuple(volume.shape)
    noise = steady_rfftn(torch.randn(shape, generator=generator, dtype=torch.float64)).to(volume.device)
    spectrum = steady_rfftn(volume.double())
    turned = spectrum.abs() * noise / noise.abs().clamp_min(1e-300)
    mixed = torch.where(shell_index(shape, volume.device) >= first_shell, turned, spectrum)
    return torch.fft.irfftn(mixed, s=shape)


def correct_for_mask(masked: torch.Tensor, randomised: torch.Tensor, first_shell: int) -> torch.Tensor:
    """(shell,) what of a masked FSC is not the mask's doing: (t - n) / (1 - n) (Chen et al. 2013).

    t is the masked FSC, n that of the same halves after phase randomisation from first_shell on. The two shells at the
    start are left as t: the mask's transform mixes them with shells whose phases were kept.
    """
    corrected = masked.clone()
    t, n = masked[first_shell + 2 :], randomised[first_shell + 2 :].clamp(max=1 - 1e-6)
    corrected[first_shell + 2 :] = (t - n) / (1 - n)
    return corrected
