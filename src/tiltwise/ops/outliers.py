"""Hide what is far too dark or bright to be specimen: gold beads, ice crystals, dead pixels."""

import torch

_SCALE = 20.0  # Å, sd of the Gaussian that gathers the contrast of a bead
_THRESHOLD = 8.0  # robust standard deviations; particles reach 5
_LARGEST_SHARE = 0.3  # more than this of an image is no outlier
_ENOUGH = 1e5  # pixels, for a median


def hide_outliers(image: torch.Tensor, pixel_size: float) -> torch.Tensor:
    """The image (y, x) with outliers of its smoothed version, and single pixels off by the same measure, made flat.

    They take the local mean of what remains, so that no edge is left. An image with too many of them comes back as is.
    """
    blur = _gaussian(tuple(image.shape), pixel_size, image.device)
    far, bad = _far_out(_filter(image, blur)), _far_out(image)
    if far.any():
        bad |= _filter(far.to(image), blur) > 0.1
    share = float(bad.to(image).mean())
    if share == 0 or share > _LARGEST_SHARE:
        return image
    good = 1 - bad.to(image)
    wide = blur**9
    fill = _filter(good * image, wide) / _filter(good, wide).clamp_min(0.02)
    return torch.where(bad, fill, image)


def _gaussian(shape: tuple[int, int], pixel_size: float, device: torch.device) -> torch.Tensor:
    """(y, x // 2 + 1) transform of the Gaussian, the product of what it is along y and along x."""
    y = torch.fft.fftfreq(shape[0], pixel_size, device=device)
    x = torch.fft.rfftfreq(shape[1], pixel_size, device=device)
    along_y, along_x = (torch.exp(-2 * torch.pi**2 * _SCALE**2 * k**2) for k in (y, x))
    return along_y[:, None] * along_x


def _filter(image: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=image.shape)


def _far_out(image: torch.Tensor) -> torch.Tensor:
    """Which pixels are more than 8 robust standard deviations off; these from a lattice of some 10⁵ pixels (0.3 %)."""
    step = max(1, int((image.numel() / _ENOUGH) ** 0.5))
    some = image[::step, ::step]
    centre = some.median()
    sd = 1.4826 * (some - centre).abs().median()
    return (image - centre).abs_() > _THRESHOLD * sd.clamp_min(1e-12 + 1e-6 * float(centre.abs()))
