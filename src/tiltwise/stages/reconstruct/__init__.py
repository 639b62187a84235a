"""Reconstruct a tomogram: weighted back projection or least squares, the contrast transfer corrected by depth."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.moments import kurtosis
from tiltwise.ops.tomogram.elongation import elongation, measure_bead_shape, missing_wedge_fraction
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.stages.reconstruct.memory import MemoryPlan, new_volumes, plan_memory
from tiltwise.stages.reconstruct.setup import Setup, default_voxel_size, set_up, tomogram_shape
from tiltwise.stages.reconstruct.slabs import reconstruct_slab

__all__ = ["ReconstructResult", "default_voxel_size", "reconstruct", "tomogram_shape"]

_LOOKED_AT = 1 << 23
"""Voxels from which the kurtosis and the step of 8-bit numbers are taken, whole planes evenly chosen."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReconstructResult:
    tomogram: Volume
    """Density positive; mean about 0."""
    half_tomograms: HalfMaps | None
    """The same from the odd and the even frames, or from every other tilt where there are none, where asked for; the
    tomogram is their mean."""
    pyramid: Volume | None
    """The tomogram once more, where OME-Zarr is asked for."""
    quality: dict
    """voxel_size_A, shape (z, y, x), kurtosis, tilts, ctf_correction, depth_levels, deformation_A,
    deformation_along_beam_A, halves (frames, tilts or None), planned_memory_GB, slabs, bead_shape,
    beads_erased, notes."""


def reconstruct(
    tilt_series: TiltSeries,
    params: ReconstructParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> ReconstructResult:
    """Tomogram f(X) = Σ_i ∫ w_i(k) S_i(k; depth) Î_i(k) e^{2πi k·u_i(X)} d²k of the used tilts (wbp), or least squares.

    S_i = sign(CTF_i) (phase_flip) or CTF_i (wiener) at defocus_i + h · depth, the constant -1 where no CTF is known,
    times the exposure weight; w_i as ops/tomogram/slice_weights.py says; u_i that of the deforming specimen where the
    series has a deformation. Each image is made for a few depths and each voxel takes the nearest; they are spaced so
    that chi at the voxel's Nyquist frequency is right to π / 8, and u_i to a tenth of a voxel
    (ops/tomogram/straight_deformation.py). cg and sirt minimise Σ_i |A_i f - y_i|² with y_i the images without w_i.
    Rows are treated slab by slab within the memory planned.
    """
    setup = set_up(tilt_series, params)
    plan = plan_memory(setup)
    progress(0.0, plan.text)
    volumes = new_volumes(setup, plan)
    residuals = _fill(setup, plan, volumes, (device, progress))
    tomogram = _mean(volumes)
    quality = _quality(setup, plan, tomogram) | ({"residual": residuals} if residuals else {})
    if not math.isfinite(quality["kurtosis"]):
        raise StageError(
            f"{tilt_series.name}: the tomogram is constant or not finite; look at the images and the shifts"
        )
    finished = [_finished(data, setup) for data in ([tomogram] if len(volumes) == 1 else [tomogram, *volumes])]
    if params.output == "int8":
        quality["int8_step"] = finished[0].step
    return ReconstructResult(
        tomogram=finished[0],
        half_tomograms=HalfMaps(half1=finished[1], half2=finished[2]) if len(finished) == 3 else None,
        pyramid=finished[0] if params.ome_zarr else None,
        quality=quality,
    )


def _fill(setup: Setup, plan: MemoryPlan, volumes: list[np.ndarray], run: tuple[str, Progress]) -> list[float]:
    """Reconstruct every slab of rows into the volumes; gives the relative residuals of the first slab, if any."""
    device, progress = run
    first: list[float] = []
    for number, rows in enumerate(plan.slabs):

        def report(fraction: float, message: str, number: int = number) -> None:
            progress((number + fraction) / len(plan.slabs), message)

        residuals = reconstruct_slab(setup, rows, volumes, device, report)
        first = first or residuals
        plan.release(volumes)
    return first


def _mean(volumes: list[np.ndarray]) -> np.ndarray:
    """The volume itself, or the mean of two halves, plane by plane in the place of a third."""
    if len(volumes) == 1:
        return volumes[0]
    tomogram = volumes.pop(0)
    for z in range(len(tomogram)):
        tomogram[z] = (volumes[0][z].astype(np.float32) + volumes[1][z]) / 2
    return tomogram


def _quality(setup: Setup, plan: MemoryPlan, tomogram: np.ndarray) -> dict:
    return {
        "voxel_size_A": setup.voxel_size,
        "shape": list(setup.shape),
        "kurtosis": kurtosis(torch.from_numpy(_some_planes(tomogram))),
        "tilts": len(setup.tilts),
        "method": setup.params.method,
        "ctf_correction": setup.correction,
        "depth_levels": max(len(d) for d in setup.geometry.depth),
        "deformation_A": round(setup.displaced, 2),
        "deformation_along_beam_A": round(setup.deeper, 2),
        "halves": setup.halves,
        "planned_memory_GB": round(plan.bytes / 1e9, 3),
        "slabs": len(plan.slabs),
        "bead_shape": _bead_shape(setup, tomogram),
        "beads_erased": len(setup.tilt_series.beads.position) if setup.params.erase_beads else 0,
        "notes": list(setup.notes),
    }


def _bead_shape(setup: Setup, tomogram: np.ndarray) -> dict | None:
    """Elongation and missing wedge as beads show them, beside the closed forms for the tilts; None without beads."""
    series = setup.tilt_series
    if series.beads is None or setup.params.erase_beads:
        return None
    shape = measure_bead_shape(tomogram, setup.voxel_size, series.beads.position, series.beads.diameter)
    if shape is None:
        return None
    angles = series.geometry.tilt_angle[setup.tilts]
    covered = float(angles.min()), float(angles.max())
    return {
        "beads": shape.beads,
        "elongation": round(shape.elongation, 3),
        "elongation_expected": round(elongation(*covered), 3),
        "lowest_angle_deg": shape.lowest_angle,
        "highest_angle_deg": shape.highest_angle,
        "tilt_range_deg": [round(a, 2) for a in covered],
        "missing_wedge": round(missing_wedge_fraction(shape.lowest_angle, shape.highest_angle), 3),
        "missing_wedge_expected": round(missing_wedge_fraction(*covered), 3),
    }


def _some_planes(data: np.ndarray) -> np.ndarray:
    step = max(1, math.ceil(data.size / _LOOKED_AT))
    return np.ascontiguousarray(data[step // 2 :: step], dtype=np.float32)


def _finished(data: np.ndarray, setup: Setup) -> Volume:
    """The volume in the numbers asked for; 8-bit ones span all but the outermost 2 in 10 000 voxels."""
    if setup.params.output != "int8":
        return Volume(data=data, voxel_size=setup.voxel_size)
    step = float(np.quantile(np.abs(_some_planes(data)).ravel()[::7], 0.9998)) / 127 or 1.0
    small = np.empty(data.shape, np.int8)
    for z in range(len(data)):
        np.clip(np.rint(data[z].astype(np.float32) / step), -127, 127, out=small[z], casting="unsafe")
    return Volume(data=small, voxel_size=setup.voxel_size, step=step)
