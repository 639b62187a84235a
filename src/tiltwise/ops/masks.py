"""Soft masks: 1 inside, a raised cosine at the edge, 0 outside. Lengths in voxels; the centre is index n // 2."""

import numpy as np
import torch
from scipy import ndimage


def soft_sphere(shape: tuple[int, ...], radius: float, edge: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Float32 ball (a disc in 2D) of an array of this shape: 1 up to radius, falling to 0 at radius + edge."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) - n // 2 for n in shape]
    square = torch.zeros([1] * len(shape), device=device)
    for i, axis in enumerate(axes):
        square = square + (axis**2).reshape([-1 if j == i else 1 for j in range(len(shape))])
    return cosine_edge(square.sqrt() - radius, edge)


def cosine_edge(distance: torch.Tensor, edge: float) -> torch.Tensor:
    """1 where the distance is not above 0, 0 from `edge` on, (1 + cos(pi distance / edge)) / 2 between."""
    if edge <= 0:
        return (distance <= 0).to(distance.dtype)
    return 0.5 * (1 + torch.cos(torch.pi * (distance / edge).clamp(0, 1)))


def soft_mask(core: np.ndarray, grow: float, edge: float) -> torch.Tensor:
    """Float32 mask of a boolean core: 1 within `grow` of it (Euclidean), a cosine over the next `edge`."""
    distance = ndimage.distance_transform_edt(~core) - grow
    return cosine_edge(torch.as_tensor(distance, dtype=torch.float32), edge)


def soft_mask_from_map(filtered: torch.Tensor, threshold: float, grow: float, edge: float) -> torch.Tensor:
    """Mask (z, y, x) of a smoothed map: its largest body above the threshold, grown, with a cosine edge.

    Only voxels of the ball that fits the box, less grow and edge, can be of the body, so that the mask ends within the
    box. No body gives an empty mask, which is for the caller to judge.
    """
    body = largest_body(filtered, threshold, min(filtered.shape) // 2 - grow - edge)
    if not body.any():
        return torch.zeros_like(filtered, dtype=torch.float32)
    return soft_mask(body, grow, edge).to(filtered.device)


def largest_body(volume: torch.Tensor, threshold: float, radius: float) -> np.ndarray:
    """Boolean array of the largest connected body (touching by faces) above the threshold within a central ball."""
    ball = soft_sphere(tuple(volume.shape), radius, 0.0) > 0
    bodies, number = ndimage.label((volume.cpu() > threshold).numpy() & ball.numpy())
    if number == 0:
        return np.zeros(volume.shape, dtype=bool)
    sizes = np.bincount(bodies.ravel())
    sizes[0] = 0
    return bodies == sizes.argmax()
