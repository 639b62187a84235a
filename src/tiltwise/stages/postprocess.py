"""Two half maps become one map, with a mask, and a resolution that the mask has not made up: of the whole, by
direction, and from place to place."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass, radial_filter
from tiltwise.ops.fsc import correct_for_mask
from tiltwise.ops.maps.conical_fsc import conical_fsc, directional_resolution
from tiltwise.ops.maps.fsc_precision import independent_values
from tiltwise.ops.maps.local_resolution import measure_local_resolution
from tiltwise.ops.maps.masked_fsc import (
    RESOLUTION_THRESHOLD,
    MaskedFsc,
    measure_masked_fsc,
    reference_correlation,
    unmasked_resolution,
)
from tiltwise.ops.maps.sharpening import GuinierFit, fit_b_factor, sharpen, shell_amplitude
from tiltwise.ops.masks import largest_body, soft_mask, soft_sphere
from tiltwise.ops.symmetry import symmetry_order
from tiltwise.params.postprocess import PostprocessParams

_UNCERTAIN = 1.15
"""Ratio of the ends of the resolution's range that a note is due for."""
_UNEVEN = 1.5
"""Ratio of the worst to the best direction that a note is due for."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PostprocessResult:
    map: Volume
    """Mean of the halves, FSC-weighted, sharpened, low-passed at the resolution; not masked."""
    mask: Volume
    """Soft mask, 0 to 1, in which the resolution was measured."""
    local_resolution: Volume | None
    """Å at every voxel, beyond the mask too, where it means little; None where it was not asked for."""
    quality: dict
    """Resolution, FSC curves, by direction, local in the mask, B-factor with its fit, what the mask was made of, and
    notes in plain words."""


def postprocess(
    half_maps: HalfMaps, params: PostprocessParams, *, device: str = "cpu", progress: Progress = no_progress
) -> PostprocessResult:
    """Mask, FSC with phase randomisation (Chen et al. 2013), FSC weighting and sharpening (Rosenthal & Henderson 2003).

    The resolution is where the corrected FSC first falls below 0.143, averaged over shells where single ones hold too
    few independent values to tell, and stands with its 95 % range (ops/maps/fsc_precision.py). Weights are
    sqrt(2 FSC / (1 + FSC)) of the corrected FSC. No B-factor is applied where none can be fitted; the notes say so.
    Resolution by direction is that of cones (ops/maps/conical_fsc.py), corrected for the mask alike; local resolution
    needs no mask (ops/maps/local_resolution.py).
    Raises StageError for halves that are not two finite cubes of one size.
    """
    half1, half2, voxel_size = _checked_halves(half_maps, device)
    mean = (half1 + half2) / 2
    progress(0.1, "mask")
    mask, mask_quality, notes = _make_mask(
        half1, half2, unmasked_resolution(half1, half2, voxel_size), voxel_size, params
    )
    progress(0.3, "Fourier shell correlation")
    curves = measure_masked_fsc(half1, half2, mask, voxel_size, params.seed, order=symmetry_order(half_maps.symmetry))
    frequency, resolution = curves.frequency, curves.resolution
    progress(0.4, "resolution by direction")
    directional, uneven = _measure_directions(half1, half2, mask, curves)
    progress(0.5, "local resolution")
    local, local_quality = _measure_places(half1, half2, mask, voxel_size, params, progress)
    progress(0.9, "sharpening")
    weight = reference_correlation(curves.corrected)
    fit = fit_b_factor(frequency, shell_amplitude(mean * mask).cpu(), weight, resolution)
    b_factor = params.b_factor if params.b_factor is not None else fit.b_factor
    result = _finish(mean, frequency, weight, b_factor, resolution, voxel_size)
    if not bool(torch.isfinite(result).all()):
        raise StageError(f"sharpening with a B-factor of {b_factor:.0f} Å² overflows; give one nearer to 0")
    notes += _notes(curves, resolution, fit, params) + _uncertain(curves) + uneven
    quality = _curve_quality(curves, resolution) | directional | local_quality | _b_factor_quality(fit, b_factor)
    progress(1.0, "map written")
    return PostprocessResult(
        map=_volume(result, voxel_size),
        mask=_volume(mask, voxel_size),
        local_resolution=local,
        quality=quality | mask_quality | {"notes": notes},
    )


def _checked_halves(half_maps: HalfMaps, device: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    a, b = half_maps.half1, half_maps.half2
    if a.data.shape != b.data.shape or len(set(a.data.shape)) != 1:
        raise StageError(f"half maps must be cubes of one size, not {a.data.shape} and {b.data.shape}")
    if not math.isclose(a.voxel_size, b.voxel_size, rel_tol=1e-4):
        raise StageError(f"half maps differ in voxel size: {a.voxel_size:g} and {b.voxel_size:g} Å")
    halves = [torch.as_tensor(np.ascontiguousarray(v.data, dtype=np.float32), device=device) for v in (a, b)]
    for number, half in enumerate(halves, start=1):
        if not bool(torch.isfinite(half).all()) or float(half.std()) == 0:
            raise StageError(f"half map {number} is constant or not finite; refine it again")
    return halves[0], halves[1], float(a.voxel_size)


def _make_mask(
    half1: torch.Tensor, half2: torch.Tensor, resolution: float, voxel_size: float, params: PostprocessParams
) -> tuple[torch.Tensor, dict, list[str]]:
    """The mask of the mean map, low-passed to 1.5 × the unmasked resolution (at least 15 Å and 4 voxels).

    Threshold above the median: three times the noise, measured on the difference of the halves after the same low-pass,
    but not less than 0.15 of the 99.9th percentile, where noise is no longer what ends the particle. A body smaller
    than a cube of the low-pass is a peak of noise, and a mask about it would choose where the halves happen to agree.
    """
    coarsest = len(half1) * voxel_size / 4
    spacing = params.mask_resolution or max(15.0, 4 * voxel_size, min(1.5 * resolution, coarsest))
    grow = (spacing / 4 if params.mask_grow is None else params.mask_grow) / voxel_size
    edge = max(spacing / 2 / voxel_size, 5.0) if params.mask_edge is None else params.mask_edge / voxel_size
    signal = low_pass((half1 + half2) / 2, spacing, voxel_size)
    noise = low_pass((half1 - half2) / 2, spacing, voxel_size)
    ball = soft_sphere(tuple(half1.shape), len(half1) // 2 - edge, 0.0, half1.device) > 0
    background = float(signal[ball].median())
    peak = float(torch.quantile(signal[ball][:: max(1, int(ball.sum()) // 1_000_000)], 0.999)) - background
    threshold = max(3 * float(noise[ball].std()), 0.15 * peak)
    body = largest_body(signal, background + threshold, len(half1) // 2 - grow - edge)
    notes = []
    if body.sum() * voxel_size**3 > spacing**3:
        mask = soft_mask(body, grow, edge).to(half1.device)
    else:
        mask = soft_sphere(tuple(half1.shape), len(half1) // 2 - edge, edge, half1.device)
        notes.append("no body of density stands above the noise: the mask is the ball that fits the box")
    quality = {
        "mask_resolution_A": spacing,
        "mask_threshold": background + threshold,
        "mask_grow_A": grow * voxel_size,
        "mask_edge_A": edge * voxel_size,
        "mask_fraction": float(mask.mean()),
    }
    return mask, quality, notes


def _measure_directions(
    half1: torch.Tensor, half2: torch.Tensor, mask: torch.Tensor, curves: MaskedFsc
) -> tuple[dict, list[str]]:
    """What the cones say, and a note where it depends on the direction."""
    found = conical_fsc(half1 * mask, half2 * mask)
    corrected = [correct_for_mask(curve.cpu(), curves.randomised, curves.randomised_from) for curve in found.fsc]
    values = independent_values(len(half1), mask.cpu())
    spacing = directional_resolution(curves.frequency, torch.stack(corrected), values, RESOLUTION_THRESHOLD)
    best, worst = int(spacing.argmin()), int(spacing.argmax())
    named = [f"{spacing[i]:.1f} Å along {[round(x, 2) for x in found.direction[i].tolist()]}" for i in (best, worst)]
    note = f"the resolution depends on direction: {named[0]}, {named[1]}"
    quality = {
        "directions": found.direction.tolist(),
        "directional_resolution_A": [float(s) if math.isfinite(s) else None for s in spacing],
        "directional_best_A": float(spacing[best]) if math.isfinite(spacing[best]) else None,
        "directional_worst_A": float(spacing[worst]) if math.isfinite(spacing[worst]) else None,
    }
    return quality, [note] if float(spacing[worst]) > _UNEVEN * float(spacing[best]) else []


def _measure_places(
    half1: torch.Tensor,
    half2: torch.Tensor,
    mask: torch.Tensor,
    voxel_size: float,
    params: PostprocessParams,
    progress: Progress,
) -> tuple[Volume | None, dict]:
    """Local resolution and its 5th, 50th and 95th percentile within the mask."""
    if not params.local_resolution:
        return None, {}
    found = measure_local_resolution(
        half1, half2, voxel_size, lambda part: progress(0.5 + 0.4 * part, "local resolution")
    )
    inside = found.spacing[mask > 0.5].double().cpu().numpy()
    if not len(inside):
        return _volume(found.spacing, voxel_size), {}
    low, middle, high = (float(q) for q in np.percentile(inside, [5, 50, 95]))
    quality = {
        "local_resolution_5_A": low,
        "local_resolution_median_A": middle,
        "local_resolution_95_A": high,
        "local_resolution_band_A": [found.coarsest, found.finest],
    }
    return _volume(found.spacing, voxel_size), quality


def _finish(
    mean: torch.Tensor,
    frequency: torch.Tensor,
    weight: torch.Tensor,
    b_factor: float | None,
    resolution: float,
    voxel_size: float,
) -> torch.Tensor:
    if not math.isfinite(resolution):
        return mean
    weight = weight.clone()
    weight[0] = 1.0  # the mean density is no question of agreement
    weighted = radial_filter(mean, frequency, weight, voxel_size)
    sharpened = weighted if b_factor is None else sharpen(weighted, b_factor, voxel_size)
    return low_pass(sharpened, resolution, voxel_size)


def _notes(curves: MaskedFsc, resolution: float, fit: GuinierFit, params: PostprocessParams) -> list[str]:
    notes = []
    if not math.isfinite(resolution):
        notes.append("the halves agree in no shell: no resolution; the map is the plain mean of the halves")
    elif bool((curves.corrected[1:] >= RESOLUTION_THRESHOLD).all()):
        notes.append("the FSC does not fall below 0.143: the resolution is limited by the voxel size")
    plain = curves.resolution_unmasked
    if resolution > 1.1 * plain:
        notes.append(f"the mask costs resolution ({resolution:.1f} Å against {plain:.1f} Å without): look at it")
    if params.b_factor is None and fit.b_factor is None:
        notes.append(f"no B-factor was fitted and the map is not sharpened: {fit.why_not}")
    return notes


def _uncertain(curves: MaskedFsc) -> list[str]:
    fine, coarse = curves.resolution_range
    if not math.isfinite(coarse) or coarse <= _UNCERTAIN * fine:
        return []
    return [f"the FSC lies too near 0.143 to say where it crosses: anywhere from {fine:.1f} to {coarse:.1f} Å"]


def _curve_quality(curves: MaskedFsc, resolution: float) -> dict:
    plain = curves.resolution_unmasked
    inside = curves.randomised_from < len(curves.frequency)
    return {
        "resolution_fsc_A": resolution if math.isfinite(resolution) else None,
        "resolution_range_A": [spacing if math.isfinite(spacing) else None for spacing in curves.resolution_range],
        "resolution_unmasked_A": plain if math.isfinite(plain) else None,
        "randomised_from_A": float(1 / curves.frequency[curves.randomised_from]) if inside else None,
        "frequency": curves.frequency.tolist(),
        "fsc_unmasked": curves.unmasked.tolist(),
        "fsc_masked": curves.masked.tolist(),
        "fsc_randomised": curves.randomised.tolist(),
        "fsc_corrected": curves.corrected.tolist(),
    }


def _b_factor_quality(fit: GuinierFit, applied: float | None) -> dict:
    return {
        "b_factor_A2": applied,
        "b_factor_fitted_A2": fit.b_factor,
        "b_factor_error_A2": fit.b_factor_error,
        "guinier_inverse_square": fit.inverse_square.tolist(),
        "guinier_log_amplitude": fit.log_amplitude.tolist(),
    }


def _volume(data: torch.Tensor, voxel_size: float) -> Volume:
    return Volume(data=data.cpu().numpy().astype(np.float32), voxel_size=voxel_size)
