"""Hide what is far too dark or bright to be specimen: gold beads, ice crystals, dead pixels."""

import torch

from tiltwise.ops.fourier import frequency_norm

_SCALE = 20.0  # Å, sd of the Gaussian that gathers the contrast of a bead
_THRESHOLD = 8.0  # robust standard deviations; particles reach 5
_LARGEST_SHARE = 0.3  # more than this of an image is no outlier


def hide_outliers(image: torch.Tensor, pixel_size: float) -> torch.Tensor:
    """The image (y, x) with outliers of its smoothed version, and single pixels off by the same measure, made flat.

    They take the local mean of what remains, so that no edge is left. An image with too many of them comes back as is.
    """
    blur = torch.exp(-2 * torch.pi**2 * _SCALE**2 * frequency_norm(tuple(image.shape), pixel_size, image.device) ** 2)
    smooth = _filter(image, blur)
    far = (_robust_z(smooth).abs() > _THRESHOLD).to(image)
    bad = (_filter(far, blur) > 0.1) | (_robust_z(image).abs() > _THRESHOLD)
    share = float(bad.to(image).mean())
    if share == 0 or share > _LARGEST_SHARE:
        return image
    good = 1 - bad.to(image)
    wide = blur**9
    fill = _filter(good * image, wide) / _filter(good, wide).clamp_min(0.02)
    return torch.where(bad, fill, image)


def _filter(image: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=image.shape)


def _robust_z(image: torch.Tensor) -> torch.Tensor:
    centre = image.median()
    sd = 1.4826 * (image - centre).abs().median()
    return (image - centre) / sd.clamp_min(1e-12 + 1e-6 * float(centre.abs()))
