"""IMOD's text files: .xf transforms and .tlt, .rawtlt, .xtilt angles, and their meaning in our geometry.

An .xf line "A11 A12 A21 A22 DX DY" maps a raw image to the aligned one: x' - c = A (x - c) + d in pixels, with the
centre c at (n - 1) / 2 in our indices (IMOD counts n / 2 from the outer edge of the first pixel), while ours is n // 2:
half a pixel further for even n. The aligned tilt axis is y, so that A turns by minus our tilt_axis_angle.
"""

from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.text_tables import LARGEST_NUMBER

_LARGEST_DISTORTION = 0.05


def read_xf(path: str | Path) -> np.ndarray:
    """(tilt, 2, 3) matrices [A | d], d in pixels. Raises InputError for a line that has not six numbers."""
    rows = _number_rows(Path(path), width=6)
    return np.concatenate([rows[:, :4].reshape(-1, 2, 2), rows[:, 4:, None]], axis=2)


def write_xf(path: str | Path, transforms: np.ndarray) -> None:
    """Write (tilt, 2, 3) matrices [A | d] with IMOD's digits: 7 decimals for A, 3 for d."""
    lines = [
        "".join(f"{value:12.7f}" for value in matrix[:, :2].ravel())
        + "".join(f"{value:12.3f}" for value in matrix[:, 2])
        for matrix in np.asarray(transforms, dtype=np.float64)
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def read_tlt(path: str | Path) -> np.ndarray:
    """(tilt,) degrees from a .tlt, .rawtlt or .xtilt file. Raises InputError for a line that has not one number."""
    return _number_rows(Path(path), width=1)[:, 0]


def write_tlt(path: str | Path, angles: np.ndarray, *, decimals: int = 2) -> None:
    """Write one angle a line, as IMOD does with 2 decimals."""
    lines = [f"{angle + 0.0:7.{decimals}f}" for angle in np.round(np.asarray(angles, dtype=np.float64), decimals)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def geometry_from_xf(
    transforms: np.ndarray,
    tilt_angle: np.ndarray,
    *,
    pixel_size: float,
    image_shape: tuple[int, int],
    x_tilt: np.ndarray | None = None,
) -> TiltGeometry:
    """The alignment that IMOD's transforms mean; (tilt, 2, 3), (tilt,) degrees, Å, (y, x) px of the raw images.

    The axis is that of the rotation nearest to A, atan2(A12 - A21, A11 + A22); magnification and stretch of A, which
    our geometry does not hold, are left out of the angles but not out of the shift -A⁻¹ d. InputError where A departs
    from a rotation by more than 5 % or is a mirror image, or the numbers of tilts differ.
    """
    transforms, tilt_angle = np.asarray(transforms, dtype=np.float64), np.asarray(tilt_angle, dtype=np.float64)
    x_tilt = np.zeros_like(tilt_angle) if x_tilt is None else np.asarray(x_tilt, dtype=np.float64)
    if not len(transforms) == len(tilt_angle) == len(x_tilt):
        raise InputError(
            f"the alignment has {len(transforms)} transforms, {len(tilt_angle)} tilt angles and {len(x_tilt)} x-tilts; "
            "the numbers must agree"
        )
    matrix, translation = transforms[:, :, :2], transforms[:, :, 2]
    distortion = xf_distortion(transforms)
    if distortion.max(initial=0.0) > _LARGEST_DISTORTION:
        worst = int(distortion.argmax())
        raise InputError(
            f"the transform of tilt {worst + 1} departs from a rotation by {100 * distortion[worst]:.0f} %"
        )
    shift_px = -np.linalg.solve(matrix, translation[:, :, None])[:, :, 0] - _centre_difference(image_shape)
    return TiltGeometry(
        tilt_angle=tilt_angle,
        tilt_axis_angle=np.degrees(_rotation_angle(matrix)),
        x_tilt=x_tilt,
        shift=shift_px * pixel_size,
    )


def geometry_to_xf(geometry: TiltGeometry, *, pixel_size: float, image_shape: tuple[int, int]) -> np.ndarray:
    """(tilt, 2, 3) IMOD transforms of an alignment; the exact inverse of `geometry_from_xf` for pure rotations."""
    matrix = _rotation(np.radians(geometry.tilt_axis_angle))
    raw_shift = geometry.shift / pixel_size + _centre_difference(image_shape)
    return np.concatenate([matrix, -matrix @ raw_shift[:, :, None]], axis=2)


def xf_distortion(transforms: np.ndarray) -> np.ndarray:
    """(tilt,) largest stretch or shrinkage by which A departs from the nearest rotation; 2 for a mirror image."""
    matrix = np.asarray(transforms, dtype=np.float64)[:, :, :2]
    difference = matrix - _rotation(_rotation_angle(matrix))
    return np.linalg.norm(difference, ord=2, axis=(1, 2))


def _rotation_angle(matrix: np.ndarray) -> np.ndarray:
    """(tilt,) radians by which the aligned axis y lies counter-clockwise of image y."""
    return np.arctan2(matrix[:, 0, 1] - matrix[:, 1, 0], matrix[:, 0, 0] + matrix[:, 1, 1])


def _rotation(angle: np.ndarray) -> np.ndarray:
    """(tilt, 2, 2) turn by minus the angle: from the image to the aligned frame."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, s], axis=-1), np.stack([-s, c], axis=-1)], axis=-2)


def _centre_difference(image_shape: tuple[int, int]) -> np.ndarray:
    """(2,) our image centre n // 2 minus IMOD's (n - 1) / 2 in x, y, px."""
    return np.array([n // 2 - (n - 1) / 2 for n in reversed(image_shape)])


def _number_rows(path: Path, *, width: int) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is not a text file of numbers") from None
    rows = []
    for index, line in enumerate(text.splitlines()):
        words = line.replace(",", ".").split() if "," in line and width == 1 else line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise InputError(f"{path}, line {index + 1}: {line.strip()!r} is not a number") from None
        if len(values) != width or not all(abs(value) < LARGEST_NUMBER for value in values):
            raise InputError(f"{path}, line {index + 1}: expected {width} finite number(s), found {line.strip()!r}")
        rows.append(values)
    if not rows:
        raise InputError(f"{path}: holds no numbers")
    return np.array(rows, dtype=np.float64)
