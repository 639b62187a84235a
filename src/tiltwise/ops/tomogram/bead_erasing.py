"""Erase beads from an image: a disc about each takes the brightness around it and the noise of a place beside it.

The disc's smooth part is the weighted mean of what is not bead; its rough part that of the nearest clean disc: so the
noise keeps its strength and its spectrum, as a flat patch or white noise would not (compare IMOD's ccderaser). A soft
edge joins the two with weights w and sqrt(1 - w²), which keep the variance.
"""

import numpy as np
import torch

from tiltwise.ops.fourier import frequency_norm

_MARGIN = 1.25
"""Radius erased in radii of the bead: the first fringe of defocus goes with it."""
_EDGE = 0.25
"""Width of the soft edge in radii of the bead."""
_DIRECTIONS, _RINGS = 16, (2.6, 3.3, 4.2, 5.3)
"""Where noise is borrowed: places on rings about the bead, radii in radii erased; the nearest clean one."""
_FEWEST = 0.05
"""Part of good pixels that a local mean needs to be believed."""


def erase_beads(image: torch.Tensor, positions: np.ndarray, diameter: float, pixel_size: float) -> torch.Tensor:
    """The image (y, x) without beads of this diameter (Å) at positions (bead, 2), x, y in Å from the image centre.

    Nothing outside the discs changes. A bead without a clean place around it gets the smooth part alone.
    """
    radius = _MARGIN * diameter / 2 / pixel_size
    edge = _EDGE * diameter / 2 / pixel_size
    places = _inside(np.asarray(positions, float) / pixel_size + _centre(image), image, radius + edge)
    weight = bead_mask(image, places, radius, edge)
    smooth = _smooth(image, weight == 0, 2 * radius * pixel_size, pixel_size)
    rough, result = image - smooth, image.clone()
    for place in places:
        x, y = _window(place, radius + edge, image)
        source = _clean_place(place, places, radius + edge, image)
        part = weight[y, x]
        noise = torch.zeros_like(part)
        if source is not None:
            down, right = source[1], source[0]
            noise = rough[y.start + down : y.stop + down, x.start + right : x.stop + right]
        filled = smooth[y, x] + torch.sqrt(1 - (1 - part) ** 2) * noise + (1 - part) * rough[y, x]
        result[y, x] = torch.where(part > 0, filled, result[y, x])
    return result


def bead_mask(image: torch.Tensor, places: np.ndarray, radius: float, edge: float) -> torch.Tensor:
    """(y, x) 1 within the radius (px) of a place (bead, 2) x, y px, falling to 0 as a cosine over the edge (px)."""
    mask = torch.zeros_like(image)
    for place in places:
        x, y = _window(place, radius + edge, image)
        column = torch.arange(x.start, x.stop, device=image.device) - place[0]
        row = torch.arange(y.start, y.stop, device=image.device) - place[1]
        distance = (column[None, :] ** 2 + row[:, None] ** 2).sqrt()
        fall = ((distance - radius) / edge).clamp(0, 1)
        mask[y, x] = torch.maximum(mask[y, x], (0.5 + 0.5 * torch.cos(torch.pi * fall)).to(mask))
    return mask


def _smooth(image: torch.Tensor, good: torch.Tensor, width: float, pixel_size: float) -> torch.Tensor:
    """Gaussian mean of the good pixels, width (Å) its standard deviation; the mean of all where few are near."""
    known = good.to(image)
    pad = min(int(2 * width / pixel_size), min(image.shape) - 1)
    mean = (image * known).sum() / known.sum().clamp_min(1)
    frames = torch.stack([(image - mean) * known, known])[None]
    frames = torch.nn.functional.pad(frames, (pad, pad, pad, pad))[0]
    k = frequency_norm(tuple(frames.shape[1:]), pixel_size, image.device)
    passed = torch.exp(-2 * torch.pi**2 * width**2 * k**2)
    value, share = torch.fft.irfft2(torch.fft.rfft2(frames) * passed, s=tuple(frames.shape[1:]))
    local = torch.where(share > _FEWEST, value / share.clamp_min(_FEWEST), torch.zeros_like(value))
    return mean + local[pad : pad + image.shape[0], pad : pad + image.shape[1]]


def _clean_place(place: np.ndarray, places: np.ndarray, reach: float, image: torch.Tensor) -> tuple[int, int] | None:
    """Offset (x, y) px of the nearest place whose disc lies within the image and clear of every bead."""
    height, width = image.shape
    for ring in _RINGS:
        for angle in np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS:
            offset = np.round(ring * reach * np.array([np.cos(angle), np.sin(angle)])).astype(int)
            there = place + offset
            inside = (there - reach - 2 >= 0).all() and (there + reach + 2 < (width, height)).all()
            if inside and np.linalg.norm(places - there, axis=1).min() > 2 * reach:
                return int(offset[0]), int(offset[1])
    return None


def _window(place: np.ndarray, reach: float, image: torch.Tensor) -> tuple[slice, slice]:
    """Slices (x, y) of the image about a place (x, y px)."""
    low = np.floor(place - reach).astype(int)
    high = np.ceil(place + reach).astype(int) + 1
    height, width = image.shape
    return slice(max(0, low[0]), min(width, high[0])), slice(max(0, low[1]), min(height, high[1]))


def _inside(places: np.ndarray, image: torch.Tensor, reach: float) -> np.ndarray:
    """Those places whose disc touches the image."""
    height, width = image.shape
    return places[((places > -reach) & (places < np.array([width, height]) + reach)).all(1)]


def _centre(image: torch.Tensor) -> np.ndarray:
    return np.array([image.shape[1] // 2, image.shape[0] // 2], dtype=float)
