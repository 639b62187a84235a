"""Take over an alignment, or particles, that came with the import, in the place of finding them."""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.params.align import AlignParams
from tiltwise.params.pick import PickParams


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GivenResult:
    tilt_series: TiltSeries
    """The series as it was imported."""
    quality: dict
    """Figures per tilt; lists are (tilt,), None where a tilt is excluded."""


def given(
    tilt_series: TiltSeries, params: AlignParams, *, device: str = "cpu", progress: Progress = no_progress
) -> GivenResult:
    """The series with the geometry it was imported with; the parameters of align have no part in it.

    Raises InputError where the geometry is missing or holds values that are no numbers.
    """
    geometry = tilt_series.geometry
    if geometry is None:
        raise InputError(f"{tilt_series.name}: was imported with an alignment, but holds none; import it again")
    values = (geometry.tilt_angle, geometry.tilt_axis_angle, geometry.x_tilt, geometry.shift)
    if not all(np.isfinite(value).all() for value in values):
        raise InputError(f"{tilt_series.name}: the imported alignment holds values that are no numbers")
    progress(1.0, "alignment taken over")
    used = np.asarray(tilt_series.use, dtype=bool)
    return GivenResult(
        tilt_series=tilt_series,
        quality={
            "given": True,
            "shift_x_A": _listed(geometry.shift[:, 0], used),
            "shift_y_A": _listed(geometry.shift[:, 1], used),
            "tilt_axis_angle_deg": round(float(np.median(geometry.tilt_axis_angle[used])), 4),
            "excluded": [
                {"tilt": tilt, "tilt_angle_deg": float(tilt_series.stage_tilt_angle[tilt]), "why_not": reason}
                for tilt, reason in enumerate(tilt_series.why_not)
                if reason
            ],
        },
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GivenParticlesResult:
    particles: Particles
    """The particles as they were imported."""
    quality: dict
    """particles, scores (those that are numbers), regions: how many spatial blocks they lie in, outside: how many no
    used tilt shows."""


def given_particles(
    particles: Particles,
    tilt_series: TiltSeries,
    params: PickParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> GivenParticlesResult:
    """The particles that were imported for a series; of the parameters of pick only max_particles has a part in it.

    Raises InputError where no used tilt shows any of them: they were placed with another size or origin.
    """
    if tilt_series.geometry is None:
        raise InputError(f"{tilt_series.name}: not aligned yet; run align first")
    if len(particles) == 0:
        raise InputError(f"{tilt_series.name}: was imported with particles, but holds none; import them again")
    kept = particles[np.arange(len(particles)) < (params.max_particles or len(particles))]
    used = np.flatnonzero(tilt_series.use)
    place, _ = specimen_in_images(tilt_series, kept.position, used)
    half = np.array(tilt_series.image_shape[::-1]) * tilt_series.pixel_size / 2
    seen = (np.abs(place) < half).all(-1).any(0)
    if not seen.any():
        raise InputError(
            f"{tilt_series.name}: no tilt image shows any of the imported particles; "
            "were they placed on another voxel size or tomogram size? import them again"
        )
    scores = kept.score[np.isfinite(kept.score)]
    progress(1.0, f"{len(kept)} particles taken over")
    return GivenParticlesResult(
        particles=kept,
        quality={
            "given": True,
            "particles": len(kept),
            "outside": int((~seen).sum()),
            "regions": len(np.unique(kept.region[kept.region >= 0])),
            "scores": scores.tolist(),
            "spheres": [],
        },
    )


def _listed(values: np.ndarray, used: np.ndarray) -> list[float | None]:
    return [round(float(value), 6) if kept else None for value, kept in zip(values, used, strict=True)]
