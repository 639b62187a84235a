"""Points with weights projected onto images, one image for each slab of depth: how the simulator sees a molecule."""

import numpy as np

from tiltwise.ops.kernels.point_projection import project_points_compiled


def project_points_to_slabs(
    point: np.ndarray, weight: np.ndarray, rotation: np.ndarray, offset: np.ndarray, slabs: tuple[int, float], size: int
) -> np.ndarray:
    """(particle, slab, size, size, 2) float32 images of rotated points, shared out bilinearly among four pixels.

    point (point, 3) and offset (particle, 2) in pixels; weight (point, 2); rotation (particle, 3, 3); slabs = number
    and thickness in pixels, centred on depth 0 (the outermost reach to infinity). offset moves the origin from pixel
    size // 2. Points outside the image are left out. The transform of the sharing is sinc²(kx) sinc²(ky), k in
    cycles/pixel.
    """
    number, thickness = slabs
    image = np.zeros((len(rotation), number, size, size, 2), dtype=np.float32)
    arrays = (np.ascontiguousarray(a, dtype=np.float32) for a in (point, weight, rotation, offset))
    project_points_compiled(*arrays, np.float32(thickness), image)
    return image


def project_points_plain(
    point: np.ndarray, weight: np.ndarray, rotation: np.ndarray, offset: np.ndarray, slabs: tuple[int, float], size: int
) -> np.ndarray:
    """The plain twin of `project_points_to_slabs`, in float64."""
    number, thickness = slabs
    image = np.zeros((len(rotation), number * size * size, 2))
    for p, matrix in enumerate(np.asarray(rotation, dtype=np.float64)):
        rotated = point @ matrix.T
        place = rotated[:, :2] + offset[p] + size // 2
        slab = np.clip(np.floor(rotated[:, 2] / thickness + 0.5 * number).astype(int), 0, number - 1)
        corner = np.floor(place).astype(int)
        inside = ((corner >= 0) & (corner + 1 < size)).all(axis=1)
        fraction = (place - corner)[inside]
        for dy in (0, 1):
            for dx in (0, 1):
                share = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
                index = (slab[inside] * size + corner[inside, 1] + dy) * size + corner[inside, 0] + dx
                np.add.at(image[p], index, share[:, None] * weight[inside])
    return image.reshape(len(rotation), number, size, size, 2)
