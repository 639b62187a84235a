"""Fourier grids, cropping and shifting. Real transforms over the last axes; the centre of n samples is index n // 2."""

import torch

from tiltwise.ops.steady import steady_rfftn


def frequency_grid_2d(shape: tuple[int, int], pixel_size: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """(y, x // 2 + 1, 2) float32 frequencies x, y in 1/Å of rfft2 of images of shape (y, x)."""
    ky = torch.fft.fftfreq(shape[0], pixel_size, device=device)
    kx = torch.fft.rfftfreq(shape[1], pixel_size, device=device)
    return torch.stack([kx.expand(shape[0], -1), ky[:, None].expand(-1, len(kx))], dim=-1)


def frequency_norm(shape: tuple[int, ...], pixel_size: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Length in 1/Å of the frequencies of rfftn over all axes of an array of this shape, 2D or 3D."""
    axes = [torch.fft.fftfreq(n, pixel_size, device=device) for n in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1], pixel_size, device=device))
    total = torch.zeros([len(a) for a in axes], device=device)
    for i, axis in enumerate(axes):
        total = total + axis.reshape([-1 if j == i else 1 for j in range(len(axes))]) ** 2
    return total.sqrt()


def shift_phase(frequency: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """exp(-2 pi i k·t): multiply a transform by it to move the image by t.

    frequency (y, x, 2) 1/Å; shift (..., 2) Å. Gives (..., y, x) complex.
    """
    angle = -2 * torch.pi * torch.einsum("yxc,...c->...yx", frequency.to(shift.dtype), shift)
    return torch.polar(torch.ones_like(angle), angle)


def crop_spectrum(spectrum: torch.Tensor, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> torch.Tensor:
    """Crop (or zero-pad) an rfftn half spectrum, over the last len(shape) axes, to that of arrays of new_shape.

    shape and new_shape are those of the real arrays. Values keep their scale up to the factor of the sizes, which
    `fourier_rescale` applies. On an even axis cropping drops the Nyquist line, so that a real array stays real.
    """
    kept = [(min(n, m) - 1) // 2 for n, m in zip(shape, new_shape, strict=True)]
    sizes = [*new_shape[:-1], new_shape[-1] // 2 + 1]
    if tuple(shape) == tuple(new_shape):
        return spectrum
    result = spectrum.new_zeros(*spectrum.shape[: spectrum.ndim - len(shape)], *sizes)
    corners: list[tuple[slice, ...]] = [()]
    for k in kept[:-1]:
        corners = [c + (s,) for c in corners for s in (slice(0, k + 1), slice(-k, None) if k else slice(0, 0))]
    for corner in corners:
        block = (..., *corner, slice(0, kept[-1] + 1))
        result[block] = spectrum[block]
    return result


def fourier_rescale(data: torch.Tensor, new_shape: tuple[int, ...]) -> torch.Tensor:
    """Resample over the last len(new_shape) axes by cropping or padding the transform about the centre n // 2.

    Mean values are kept. The new pixel is old · n / m, equal on all axes only if n / m is. The centre stays the centre:
    sample n // 2 moves onto sample m // 2.
    """
    dims = tuple(range(-len(new_shape), 0))
    shape = tuple(data.shape[d] for d in dims)
    if shape == tuple(new_shape):
        return data
    centred = torch.fft.ifftshift(data, dim=dims)
    spectrum = crop_spectrum(steady_rfftn(centred, len(dims)), shape, tuple(new_shape))
    scale = 1.0
    for n, m in zip(shape, new_shape, strict=True):
        scale *= m / n
    return torch.fft.fftshift(torch.fft.irfftn(spectrum * scale, s=tuple(new_shape), dim=dims), dim=dims)
