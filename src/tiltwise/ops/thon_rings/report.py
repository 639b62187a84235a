"""What a fit of Thon rings says tilt by tilt: curves to look at, and how far the rings reach."""

import torch

from tiltwise.ops.thon_rings.model import RingSpectra, background_basis, patch_depth, ring_pattern
from tiltwise.ops.thon_rings.moments import local_defocus, ring_strength
from tiltwise.ops.thon_rings.prior import RingFit

_MOST_POINTS = 128
_AGREES = 2.0  # standard deviations


def expected_power(spectra: RingSpectra, fit: RingFit, tilt: int) -> torch.Tensor:
    """(patch, sector, ring) 1 - r / (1 + r) c cos 2 chi of one tilt: expected power over the background."""
    pattern = ring_pattern(spectra, spectra.bins.frequency, local_defocus(spectra, fit, tilt), fit.phase_shift)[0]
    return 1 + ring_strength(spectra, fit, tilt) * pattern


def tilt_corrected_curves(spectra: RingSpectra, fit: RingFit) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frequency (point,) and, of each tilt, observed and expected power over background (tilt, point).

    The frequencies of each patch are stretched by sqrt(dz_patch / dz_tilt), which brings its rings onto those of the
    tilt at depth 0 (but for Cs); then all patches and sectors are averaged. At most 128 points.
    """
    frequency = spectra.ring_frequency
    rings = len(frequency)
    group = -(-rings // _MOST_POINTS)
    points = -(-rings // group)
    spacing = (frequency[-1] - frequency[0]) / (rings - 1)
    depth = fit.handedness * patch_depth(spectra, fit.slope)
    basis = background_basis(spectra.bins)
    observed, expected = [], []
    for i in range(len(fit.defocus)):
        stretch = ((fit.defocus[i] + depth[i]) / fit.defocus[i]).clamp_min(0.01).sqrt()
        place = ((stretch[:, None, None] * spectra.bins.frequency - frequency[0]) / spacing / group).round().long()
        inside = (place >= 0) & (place < points)
        weight = spectra.weight[i][inside]
        flat = spectra.power[i] * torch.exp(-(basis @ fit.background[i]))
        for curve, values in ((observed, flat), (expected, expected_power(spectra, fit, i))):
            total = torch.zeros(2, points, dtype=frequency.dtype, device=frequency.device)
            total.index_add_(1, place[inside], torch.stack([weight * values[inside], weight]))
            curve.append(total[0] / total[1].clamp_min(1e-9))
    centre = frequency[0] + spacing * group * torch.arange(points, device=frequency.device)
    return centre, torch.stack(observed), torch.stack(expected)


def fit_resolution(spectra: RingSpectra, fit: RingFit) -> torch.Tensor:
    """(tilt,) finest spacing, Å, up to which observed and fitted rings agree; nan where they do nowhere.

    In windows of an eighth of the band, the projection of what was observed on the fitted rings is compared with its
    noise; from the window of best agreement outwards, the last one above 2 standard deviations gives the spacing.
    """
    frequency, basis = spectra.ring_frequency, background_basis(spectra.bins)
    reach = max(2, len(frequency) // 16)
    window = torch.ones(1, 1, 2 * reach + 1, dtype=frequency.dtype, device=frequency.device)
    spacing = []
    for i in range(len(fit.defocus)):
        rings = expected_power(spectra, fit, i) - 1
        surprise = spectra.power[i] * torch.exp(-(basis @ fit.background[i])) - 1
        sums = torch.stack([(spectra.weight[i] * rings * other).sum((0, 1)) for other in (surprise, rings)])
        score, variance = torch.nn.functional.conv1d(sums[:, None], window, padding=reach)[:, 0]
        agreement = score / variance.clamp_min(1e-12).sqrt()
        best = int(agreement.argmax())
        if agreement[best] < _AGREES:
            spacing.append(torch.nan)
            continue
        fails = torch.nonzero(agreement[best:] < _AGREES).flatten()
        last = best + int(fails[0]) - 1 if len(fails) else len(frequency) - 1
        spacing.append(float(1 / frequency[last]))
    return torch.tensor(spacing, dtype=frequency.dtype)
