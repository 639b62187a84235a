"""Pictures of volumes: slices with robust contrast, what lies on them, and shaded surfaces."""

import numpy as np
from scipy import ndimage

from tiltwise.report.page import Html, data_uri, png_bytes, tag

AXES = {"z": 0, "y": 1, "x": 2}
_WIDEST = 640


def slab(volume: np.ndarray, axis: str, thickness: int = 1, index: int | None = None) -> np.ndarray:
    """(rows, columns) mean of a few slices across an axis about an index (the centre n // 2 if none): yx, zx or zy."""
    a = AXES[axis]
    middle = volume.shape[a] // 2 if index is None else index
    first = min(max(0, middle - thickness // 2), volume.shape[a] - 1)
    cut = [slice(None)] * 3
    cut[a] = slice(first, first + max(1, thickness))
    return np.asarray(volume[tuple(cut)], dtype=np.float32).mean(axis=a)


def to_gray(image: np.ndarray, low: float = 0.5, high: float = 99.5, dark: bool = False) -> np.ndarray:
    """8-bit image (y, x), row 0 at the bottom, between two percentiles; `dark` shows density dark, as a camera does."""
    finite = image[np.isfinite(image)]
    bottom, top = np.percentile(finite, [low, high]) if len(finite) else (0.0, 1.0)
    scaled = np.nan_to_num((image - bottom) / max(top - bottom, 1e-30)).clip(0, 1)
    return (255 * (1 - scaled if dark else scaled) + 0.5).astype(np.uint8)[::-1]


def shrink(image: np.ndarray, widest: int = _WIDEST) -> tuple[np.ndarray, int]:
    """The image as means of f × f pixels, and f, the smallest that brings it within `widest` pixels."""
    factor = max(1, -(-max(image.shape) // widest))
    rows, columns = (n - n % factor for n in image.shape)
    blocks = image[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    return blocks.mean(axis=(1, 3)), factor


def picture(
    image: np.ndarray,
    pixel_size: float,
    *,
    circles: np.ndarray | None = None,
    dark: bool = False,
    width: int = 420,
) -> Html:
    """An image (y, x) with a scale bar and circles (n, 3): x, y, radius in Å from the centre n // 2, drawn over it."""
    small, factor = shrink(image)
    height_px, width_px = small.shape
    children = [tag("image", href=data_uri(png_bytes(to_gray(small, dark=dark))), width=width_px, height=height_px)]
    outline = {"fill": "none", "stroke": "#f0a020", "stroke_width": f"{width_px / 360:.2f}"}
    for x, y, radius in np.zeros((0, 3)) if circles is None else circles:
        column = (x / pixel_size + image.shape[1] // 2 + 0.5) / factor
        row = height_px - (y / pixel_size + image.shape[0] // 2 + 0.5) / factor
        r = radius / pixel_size / factor
        children.append(tag("circle", cx=f"{column:.1f}", cy=f"{row:.1f}", r=f"{r:.1f}", **outline))
    children.append(_scale_bar(width_px, height_px, pixel_size * factor))
    shown = width if width_px >= height_px else round(width * width_px / height_px)
    box = f"0 0 {width_px} {height_px}"
    return tag("svg", *children, viewBox=box, width=shown, class_="pixels", xmlns="http://www.w3.org/2000/svg")


def _scale_bar(width: int, height: int, pixel_size: float) -> Html:
    wanted = width * pixel_size / 4
    power = 10 ** np.floor(np.log10(wanted))
    length = max(f for f in (1, 2, 5) if f * power <= wanted) * power
    name = f"{length / 10:g} nm" if length >= 100 else f"{length:g} Å"
    size, pad = width / 20, width / 40
    bottom, black = height - pad, {"fill": "white", "stroke": "black"}
    bar = tag(
        "rect",
        x=pad,
        y=bottom - size / 5,
        width=round(length / pixel_size, 1),
        height=size / 5,
        stroke_width=0.3,
        **black,
    )
    letters = {"font_size": round(size, 1), "stroke_width": round(size / 12, 2), "paint_order": "stroke"}
    label = tag("text", name, x=pad, y=round(bottom - size / 2, 1), **letters, **black)
    return Html(bar + label)


def surface(volume: np.ndarray, level: float, axis: str) -> np.ndarray:
    """8-bit shaded picture of the surface at a level, seen along an axis from its far end; 255 where there is none.

    The first crossing along each line of sight, linear between voxels, lit from the upper left, darker with depth.
    """
    data = np.moveaxis(np.asarray(volume, np.float32), AXES[axis], 0)[::-1]
    above = data > level
    hit = above.any(axis=0)
    index = above.argmax(axis=0)
    rows, columns = np.indices(index.shape)
    inner, outer = data[index, rows, columns], data[np.maximum(index - 1, 0), rows, columns]
    depth = index - np.where(index > 0, (inner - level) / np.maximum(inner - outer, 1e-12), 0)
    gradient = [ndimage.gaussian_filter(data, 1.0, order=order) for order in np.eye(3, dtype=int)]
    normal = -np.stack([g[index, rows, columns] for g in gradient])
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
    light = np.array([-0.75, 0.45, -0.48])
    shade = np.clip(np.tensordot(light / np.linalg.norm(light), normal, axes=1), 0, 1)
    near, far = (np.min(depth[hit]), np.max(depth[hit])) if hit.any() else (0, 1)
    fog = 1 - 0.45 * (depth - near) / max(far - near, 1e-6)
    gray = np.where(hit, 25 + 205 * fog * (0.2 + 0.8 * shade), 255)
    return gray.clip(0, 255).astype(np.uint8)[::-1]


def surface_picture(volume: np.ndarray, level: float, axis: str, width: int = 230) -> Html:
    """The shaded surface on a clear ground, drawn at twice the voxels of the volume."""
    fine = np.asarray(volume, np.float32)
    if max(fine.shape) <= 160:
        fine = ndimage.zoom(fine, 2, order=1, grid_mode=True, mode="nearest")
    gray = surface(fine, level, axis)
    opaque = np.where(gray < 255, 255, 0).astype(np.uint8)
    image = data_uri(png_bytes(np.stack([gray, opaque], axis=-1)))
    return tag("img", src=image, width=width, alt=f"surface seen along {axis}")


def contour_level(values: np.ndarray) -> float:
    """The level that parts values best into two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(middles[np.nanargmax(np.where(above > 0, spread, np.nan))])
