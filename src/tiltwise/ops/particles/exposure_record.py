"""The amplitudes that exposures leave, as numbers for records and reports: at a few spacings, over the exposure."""

from collections.abc import Mapping

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.particles.chunks import CropSettings
from tiltwise.ops.particles.exposure_weights import ExposureCurves, exposure_of_images

_PARTS = (0.25, 0.5, 0.75, 1.0)  # of the resolved band
_NAMES = ("critical", "published", "measured", "error", "ssnr")


def exposure_record(
    curves: Mapping[str, ExposureCurves],
    tilt_series: Mapping[str, TiltSeries],
    settings: CropSettings,
    radius: float,
) -> dict:
    """Means over all series of the images with the same exposure, to 0.1 e⁻/Å², in rising order.

    spacing_A (4,); exposure, tilt_angle_deg (its size), images (exposure,); critical, published, measured, error (the
    relative standard error of one image's) and ssnr (exposure, spacing).
    """
    shells = sorted({max(1, round(part * radius)) for part in _PARTS})
    exposure = np.concatenate([exposure_of_images(tilt_series[name]) for name in curves])
    angle = np.concatenate([_tilt_angle(tilt_series[name]) for name in curves])
    rounded, place = np.unique(np.round(exposure, 1), return_inverse=True)
    images = np.bincount(place)

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(rounded), *values.shape[1:]))
        np.add.at(total, place, values)
        return total / images.reshape(-1, *[1] * (values.ndim - 1))

    record = {
        "spacing_A": [settings.box_size * settings.pixel_size / shell for shell in shells],
        "exposure": rounded.tolist(),
        "tilt_angle_deg": mean(angle).tolist(),
        "images": images.tolist(),
    }
    for name in _NAMES:
        values = torch.cat([getattr(curve, name)[:, shells] for curve in curves.values()]).cpu().numpy()
        record[name] = mean(values).tolist()
    return record


def _tilt_angle(series: TiltSeries) -> np.ndarray:
    """(used tilt,) degrees between the specimen's normal and the beam."""
    cosine = tilt_rotations(series.geometry)[np.flatnonzero(series.use), 2, 2].clamp(-1, 1)
    return np.degrees(np.arccos(cosine.numpy()))
