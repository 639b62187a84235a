"""Take over an alignment that came with the import, in the place of finding one."""

from dataclasses import dataclass

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.params.align import AlignParams


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


def _listed(values: np.ndarray, used: np.ndarray) -> list[float | None]:
    return [round(float(value), 6) if kept else None for value, kept in zip(values, used, strict=True)]
